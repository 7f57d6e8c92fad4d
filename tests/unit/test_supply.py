"""What is installed is what the locks say; the bill of materials and the list of licences tell of all of it."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import msgspec
import pytest
from cyclonedx.schema import OutputFormat
from cyclonedx.validation import make_schemabased_validator

from tests.supply.licences import licence_of, page
from tests.supply.packages import PROJECT, TOP, Locked, altered, differences, installed, locked, needed
from tests.supply.sbom import VERSION, bill

RUNTIME = locked((TOP / "requirements.lock").read_text())
DEVELOPMENT = locked((TOP / "requirements-dev.lock").read_text())
INSTALLED = installed()
VERSIONS = {name: package.version for name, package in INSTALLED.items()}
LICENCES = TOP / "docs" / "licences.md"


def placed(folder: Path, name: str, metadata: str = "") -> None:
    """Make a folder look as if version 1 of a package, of one module, were installed there."""
    module = f"{name}.py"
    (folder / module).write_text("x = 1\n")
    about = folder / f"{name}-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: 1\n{metadata}")
    # The digest of "x = 1\n", as RECORD writes it.
    (about / "RECORD").write_text(
        f"{module},sha256=nia_NpkRxFwkPGhBR7I_yeHc_PJX0pmhxjIBam_NM_Q,6\n{about.name}/RECORD,,\n"
    )


def rows(text: str) -> list[str]:
    """Return the rows of the table of what runs."""
    return [line for line in text.split("\n## ")[1].splitlines() if line.startswith("| `")]


def test_what_is_installed_is_what_the_lock_says() -> None:
    """Every package is there in its version, and there is no other."""
    assert len(DEVELOPMENT) > 60
    assert list(differences(DEVELOPMENT, VERSIONS)) == []


def test_what_runs_is_what_the_production_lock_says() -> None:
    """The worker needs exactly the packages of the lock, but for the one that builds it, in the same versions."""
    names = needed(INSTALLED).keys() - {PROJECT}
    assert names == RUNTIME.keys() - {"flit-core"}
    assert {name: RUNTIME[name] for name in names} == {name: DEVELOPMENT[name] for name in names}


@pytest.mark.parametrize(
    ("present", "told"),
    [
        ({"rich": "15.0.0", "yarl": "1.25.1", "pip": "26.3", PROJECT: "0.1.0"}, []),
        ({"rich": "14.9", "yarl": "1.25.1"}, ["rich is 14.9, not 15.0.0"]),
        ({"rich": "15.0.0", "yarl": "1.25.1", "intruder": "1"}, ["intruder is not in the lock"]),
        ({"rich": "15.0.0"}, ["yarl is missing"]),
    ],
)
def test_an_environment_out_of_line_is_noticed(present: dict[str, str], told: list[str]) -> None:
    """A wrong version, a package too many and one too few are each found, and named."""
    lock = {"rich": Locked("15.0.0", ()), "yarl": Locked("1.25.1", ())}
    assert list(differences(lock, present)) == told


def test_no_file_of_what_runs_was_altered() -> None:
    """Each file of each package is the one that its wheel brought."""
    assert {name: files for name in RUNTIME if (files := list(altered(INSTALLED[name])))} == {}


def test_an_altered_file_is_noticed(tmp_path: Path) -> None:
    """Other contents and a missing file are found; an untouched package is let be."""
    placed(tmp_path, "sound")
    placed(tmp_path, "patched")
    placed(tmp_path, "torn")
    (tmp_path / "patched.py").write_text("x = 2\n")
    (tmp_path / "torn.py").unlink()
    found = {name: list(altered(package)) for name, package in installed(str(tmp_path)).items()}
    assert found == {"sound": [], "patched": ["patched.py"], "torn": ["torn.py"]}


def test_a_lock_is_read_with_its_markers() -> None:
    """What is for other machines is left out, and every hash is kept."""
    one, two = sha256(b"1").hexdigest(), sha256(b"2").hexdigest()
    lock = (
        f"Py_Yaml==6.0.3 \\\n    --hash=sha256:{one} \\\n    --hash=sha256:{two}\n    # via x\n"
        f"colorama==0.4.6 ; sys_platform == 'win32' \\\n    --hash=sha256:{one}\n"
    )
    assert {name: (each.version, each.hashes) for name, each in locked(lock).items()} == {
        "py-yaml": ("6.0.3", (one, two))
    }


def test_the_bill_of_materials_is_valid() -> None:
    """It keeps the schema of CycloneDX 1.6, strictly."""
    validator = make_schemabased_validator(OutputFormat.JSON, VERSION)
    assert validator.validate_str(bill(INSTALLED, RUNTIME)) is None
    assert validator.validate_str('{"bomFormat": "CycloneDX", "specVersion": "1.6", "rumour": 1}') is not None


def test_the_bill_of_materials_tells_all_that_runs() -> None:
    """It has each package once, with version, licence, package URL and the lock's hashes, and nothing that changes."""
    document = msgspec.json.decode(bill(INSTALLED, RUNTIME))
    parts = {part["name"]: part for part in document["components"]}
    assert len(parts) == len(document["components"])
    assert parts.keys() == needed(INSTALLED).keys() - {PROJECT}
    for name, part in parts.items():
        assert part["purl"] == f"pkg:pypi/{name}@{RUNTIME[name].version}"
        assert sorted(each["content"] for each in part["hashes"]) == sorted(RUNTIME[name].hashes)
        assert part["licenses"]
    assert document["metadata"]["component"]["name"] == PROJECT
    assert bill(INSTALLED, RUNTIME) == bill(installed(), RUNTIME)


def test_the_licences_are_those_of_what_is_installed() -> None:
    """docs/licences.md lists what runs, each with its licence, and names every other package; else `make sbom`."""
    written = LICENCES.read_text()
    assert rows(written) == rows(page(INSTALLED))
    assert len(rows(written)) == len(RUNTIME) - 1
    # Their licences may differ from one Python to the next, as their versions do.
    assert [name for name in INSTALLED if name != PROJECT and f"`{name}`" not in written] == []


@pytest.mark.parametrize(
    ("metadata", "licence"),
    [
        ("License-Expression: MIT OR Apache-2.0\nLicense: other\n", "MIT OR Apache-2.0"),
        ("License: MIT License\n", "MIT"),
        ("License: UNKNOWN\nClassifier: License :: OSI Approved :: ISC License (ISCL)\n", "ISC"),
        ("License: Permission is\n  hereby granted\nClassifier: License :: OSI Approved :: X\n", "X"),
        ("Classifier: Typing :: Typed\n", ""),
    ],
)
def test_a_licence_is_read_from_wherever_it_stands(tmp_path: Path, metadata: str, licence: str) -> None:
    """The expression counts before the old field, that before the classifiers; a licence's text is no name."""
    placed(tmp_path, "some", metadata)
    assert licence_of(installed(str(tmp_path))["some"]) == licence
