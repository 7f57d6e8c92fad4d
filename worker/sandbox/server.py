"""The installed RabbitMQ server: where it is, and how it gets there.

`python -m worker.sandbox.server ensure` makes sure that a server is installed.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from worker.common.text import printable
from worker.contract.errors import WorkerError

# Before PATH: the scripts that packages of Debian and Fedora put on the PATH switch to the service's own user
# and folders, and refuse to run for anybody but root.
_DIRECT = ("/usr/lib/rabbitmq/bin", "/opt/rabbitmq/sbin")
_ELSEWHERE = (
    "/usr/local/sbin",
    "/opt/homebrew/sbin",
    "/usr/local/opt/rabbitmq/sbin",
    "/opt/homebrew/opt/rabbitmq/sbin",
)
_ERLANG = ("/usr/lib/erlang/bin", "/usr/lib64/erlang/bin", "/usr/local/bin", "/opt/homebrew/bin")
# A client that shares nothing with this worker's, what reads its metrics, and what the examples in docs/examples need.
_TEST_TOOLS = {
    "amqp-publish": "amqp-tools",
    "promtool": "prometheus",
    "jq": "jq",
    "npm": "npm",
    "javac": "default-jdk-headless",
    "/usr/share/java/amqp-client.jar": "librabbitmq-client-java",
    "/usr/share/java/gson.jar": "libgoogle-gson-java",
}
_POLICY = Path("/usr/sbin/policy-rc.d")


class SandboxError(WorkerError):
    """A private RabbitMQ can't be had; the text may hold several lines of what other programs said."""

    @property
    def lines(self) -> list[str]:
        """Each line of the text."""
        return [printable(line) for line in self.message.splitlines()]


class ServerMissing(SandboxError):
    """There is no RabbitMQ server on this machine; the text says how to install one."""


def search_path() -> str:
    """Return where to look for programs. An empty PATH would be the present folder, where others may have put some."""
    return os.environ.get("PATH") or os.defpath


def check_programs() -> None:
    """See whether RabbitMQ's scripts find the programs that they run.

    Raises ServerMissing, in one line that says what to do.
    """
    path = search_path()
    if shutil.which("dirname", path=path) is None:
        raise ServerMissing(
            f"RabbitMQ's scripts find no `dirname` on the PATH ({path}): add the folders of the system's programs, "
            "such as /usr/bin:/bin"
        )


def find_server() -> Path | None:
    """Return the path of the `rabbitmq-server` script, or None where it isn't installed."""
    path = os.pathsep.join([*_DIRECT, search_path(), *_ELSEWHERE])
    found = shutil.which("rabbitmq-server", path=path)
    return Path(found) if found else None


def find_erlang_tool(name: str) -> Path | None:
    """Return the path of a program that comes with Erlang, such as `epmd`, or None."""
    path = os.pathsep.join([search_path(), *_ERLANG])
    found = shutil.which(name, path=path)
    return Path(found) if found else None


def ensure_server(install: bool, say: Callable[[str], None]) -> Path:
    """Return the path of the server; install it first where it is missing, `install` is true and this is root.

    Raises ServerMissing, in one line that says what to do.
    """
    server = find_server()
    if server is None and install and os.geteuid() == 0 and shutil.which("apt-get"):
        say("installing Debian's rabbitmq-server, which the tests and the demo need ...")
        _apt_install("rabbitmq-server")
        server = find_server()
    if server is None:
        raise ServerMissing(
            "no RabbitMQ server is installed: run `sudo apt-get install rabbitmq-server` "
            "(Fedora: `sudo dnf install rabbitmq-server`, macOS: `brew install rabbitmq`), then try again"
        )
    return server


def ensure_test_tools(install: bool, say: Callable[[str], None]) -> None:
    """See to it that the programs and libraries of other people are there by which the tests judge this worker.

    Raises ServerMissing, in one line that says what to do.
    """
    for tool, package in _TEST_TOOLS.items():
        if not _is_there(tool) and install and os.geteuid() == 0 and shutil.which("apt-get"):
            say(f"installing Debian's {package}, which the tests need ...")
            _apt_install(package)
        if not _is_there(tool):
            raise ServerMissing(f"{tool} is missing: run `sudo apt-get install {package}`, then try again")


def _is_there(tool: str) -> bool:
    return shutil.which(tool, os.F_OK) is not None  # a library is not executable


def main(arguments: list[str]) -> int:
    """Run the one command, `ensure`, and return its exit status: 0 where the programs are there now."""
    if arguments not in (["ensure"], ["ensure", "--for-tests"]):
        _say("usage: python -m worker.sandbox.server ensure [--for-tests]")
        return 2
    try:
        ensure_server(install=True, say=_say)
        if "--for-tests" in arguments:
            ensure_test_tools(install=True, say=_say)
    except ServerMissing as missing:
        _say(str(missing))
        return 1
    return 0


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _apt_install(package: str) -> None:
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    with _no_service_starts():
        for command in (
            ["apt-get", "-qq", "update"],
            ["apt-get", "-qq", "-y", "--no-install-recommends", "install", package],
        ):
            done = subprocess.run(  # noqa: S603 - the commands stand right above
                command,
                env=quiet,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            if done.returncode:
                last = "\n".join(done.stdout.splitlines()[-20:])
                raise ServerMissing(f"`{' '.join(command)}` failed with status {done.returncode}:\n{last}")


@contextmanager
def _no_service_starts() -> Iterator[None]:
    """Keep packages from starting their services, by Debian's policy-rc.d; an existing policy stays."""
    try:
        with _POLICY.open("x") as policy:
            policy.write("#!/bin/sh\nexit 101\n")
    except FileExistsError:
        yield
        return
    try:
        _POLICY.chmod(0o755)
        yield
    finally:
        with suppress(FileNotFoundError):
            _POLICY.unlink()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
