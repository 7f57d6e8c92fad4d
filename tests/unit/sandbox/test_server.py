"""The RabbitMQ server is found where it is, installed where that is allowed, and asked for in one line otherwise."""

import os
from pathlib import Path

import pytest

from worker.sandbox import server as rabbitmq_server
from worker.sandbox.node import ServerMissing, ensure_server, find_server

APT = """#!/bin/sh
echo "$DEBIAN_FRONTEND $*" >> {folder}/calls
test -x {policy} && {policy}; echo "policy $?" >> {folder}/calls
case "$*" in *install*)
    printf '#!/bin/sh\\n' > {folder}/rabbitmq-server; chmod +x {folder}/rabbitmq-server
esac
"""


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the only folder besides the system's own where programs are looked for, on a machine of root's."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/bin")
    monkeypatch.setattr(rabbitmq_server, "_DIRECT", ())
    monkeypatch.setattr(rabbitmq_server, "_ELSEWHERE", ())
    monkeypatch.setattr(rabbitmq_server, "_POLICY", tmp_path / "policy-rc.d")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return folder


def program(path: Path, text: str = "#!/bin/sh\n") -> None:
    path.write_text(text)
    path.chmod(0o755)


def test_a_server_on_the_path_is_found(programs: Path) -> None:
    """Where no distribution's own folder has it, PATH decides."""
    assert find_server() is None
    program(programs / "rabbitmq-server")
    assert find_server() == programs / "rabbitmq-server"
    assert ensure_server(install=True, say=pytest.fail) == programs / "rabbitmq-server"


def test_a_missing_server_is_one_line_with_the_remedy(programs: Path) -> None:
    """Where nothing may be installed, the error names the command that does it."""
    program(programs / "apt-get", "#!/bin/sh\nexit 1\n")
    with pytest.raises(ServerMissing, match=r"^.*sudo apt-get install rabbitmq-server.*$"):
        ensure_server(install=False, say=pytest.fail)


def test_root_gets_the_package_installed_without_its_service(programs: Path) -> None:
    """apt-get runs without questions, under a policy that starts no service and is gone afterwards."""
    program(programs / "apt-get", APT.format(folder=programs, policy=programs.parent / "policy-rc.d"))
    said: list[str] = []
    assert ensure_server(install=True, say=said.append) == programs / "rabbitmq-server"
    assert len(said) == 1
    assert (programs / "calls").read_text().splitlines() == [
        "noninteractive -qq update",
        "policy 101",
        "noninteractive -qq -y --no-install-recommends install rabbitmq-server",
        "policy 101",
    ]
    assert not (programs.parent / "policy-rc.d").exists()


def test_a_policy_of_the_machine_stays(programs: Path) -> None:
    """A policy-rc.d that stands already is neither replaced nor removed."""
    policy = programs.parent / "policy-rc.d"
    program(policy, "#!/bin/sh\nexit 104\n")
    program(programs / "apt-get", APT.format(folder=programs, policy=policy))
    ensure_server(install=True, say=lambda _: None)
    assert "policy 104" in (programs / "calls").read_text()
    assert policy.read_text() == "#!/bin/sh\nexit 104\n"


def test_an_installation_that_fails_shows_its_output(programs: Path) -> None:
    """What apt-get printed is in the error, and nothing is left of the attempt."""
    program(programs / "apt-get", "#!/bin/sh\necho 'Unable to fetch some archives' >&2\nexit 100\n")
    with pytest.raises(ServerMissing, match=r"(?s)status 100:.*Unable to fetch"):
        ensure_server(install=True, say=lambda _: None)
    assert not (programs.parent / "policy-rc.d").exists()


def test_the_command_for_make_answers_by_its_status(
    programs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """0 when the server is there, 1 when it isn't, 2 for anything but `ensure`."""
    assert rabbitmq_server.main(["ensure"]) == 1
    assert "no RabbitMQ server is installed" in capsys.readouterr().err
    program(programs / "rabbitmq-server")
    assert rabbitmq_server.main(["ensure"]) == 0
    assert rabbitmq_server.main([]) == 2
