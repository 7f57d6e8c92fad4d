"""The bill of materials of what runs in production, as CycloneDX 1.6 in JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import Distribution

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL

from tests.supply.licences import licence_of
from tests.supply.packages import PROJECT, Locked, needed

VERSION = SchemaVersion.V1_6


def bill(present: Mapping[str, Distribution], lock: Mapping[str, Locked]) -> str:
    """Return the bill of the project and all that it needs, as it is installed; hashes are those of the lock.

    Equal packages have equal bills, byte for byte: there is no time and no serial number in it. The hashes of a package
    are those of all files that it may be installed from, as the lock lists them; the project itself has none.
    """
    parts = {name: _component(name, present[name], lock.get(name)) for name in needed(present)}
    bom = Bom(components=[part for name, part in parts.items() if name != PROJECT])
    bom.metadata.component = parts[PROJECT]
    for name, others in needed(present).items():
        bom.register_dependency(parts[name], [parts[other] for other in others])
    document = json.loads(make_outputter(bom, OutputFormat.JSON, VERSION).output_as_string())
    del document["serialNumber"], document["metadata"]["timestamp"]
    return json.dumps(document, indent=2) + "\n"


def _component(name: str, package: Distribution, locked: Locked | None) -> Component:
    own = name == PROJECT
    licence = licence_of(package)
    url = PackageURL("generic" if own else "pypi", name=name, version=package.version)
    return Component(
        name=name,
        version=package.version,
        type=ComponentType.APPLICATION if own else ComponentType.LIBRARY,
        bom_ref=str(url),
        purl=url,
        licenses=[LicenseFactory().make_from_string(licence)] if licence else (),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=each) for each in locked.hashes]
        if locked
        else (),
    )
