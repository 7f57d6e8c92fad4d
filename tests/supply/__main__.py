"""Writes sbom.json, the bill of materials, and docs/licences.md: `make sbom`."""

from __future__ import annotations

from tests.supply.licences import page
from tests.supply.packages import TOP, installed, locked
from tests.supply.sbom import bill

present = installed()
(TOP / "sbom.json").write_text(bill(present, locked((TOP / "requirements.lock").read_text())))
(TOP / "docs" / "licences.md").write_text(page(present))
