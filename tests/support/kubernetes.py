"""Kubernetes objects as `kubectl kustomize` makes them, for as much of it as this project uses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]

FOLDER = Path(__file__).parents[2] / "config" / "kubernetes"
_KNOWN = {"apiVersion", "kind", "namespace", "resources", "configMapGenerator", "images"}


def built(folder: Path) -> list[Object]:
    """Return the objects of a folder's kustomization. The names of generated objects have no hash here.

    Fails where it names what is not there, or has a field that this does not know.
    """
    kustomization = _read(folder)
    objects = [obj for name in kustomization.get("resources", ()) for obj in _resource(folder / name)]
    objects += [_config_map(folder, **each) for each in kustomization.get("configMapGenerator", ())]
    for image in kustomization.get("images", ()):
        _put_image(objects, **image)
    if "namespace" in kustomization:
        for obj in objects:
            obj["metadata"]["namespace"] = kustomization["namespace"]
    return objects


def files_of(folder: Path) -> set[Path]:
    """Return all files that a folder's kustomization leads to, its own included."""
    kustomization = _read(folder)
    named = [(folder / name).resolve() for name in kustomization.get("resources", ())]
    named += [folder / name for each in kustomization.get("configMapGenerator", ()) for name in each["files"]]
    inner = [files_of(path) if path.is_dir() else {path} for path in named]
    return {folder / "kustomization.yaml"}.union(*inner)


def find(objects: list[Object], kind: str) -> Object:
    """Return the one object of a kind."""
    [found] = [obj for obj in objects if obj["kind"] == kind]
    return found


def _read(folder: Path) -> Object:
    kustomization: Object = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert kustomization.keys() <= _KNOWN
    return kustomization


def _resource(path: Path) -> Iterator[Object]:
    yield from built(path) if path.is_dir() else yaml.safe_load_all(path.read_text())


def _config_map(folder: Path, name: str, files: list[str]) -> Object:
    data = {file: (folder / file).read_text() for file in files}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def _put_image(objects: list[Object], name: str, **new: str) -> None:
    containers = [
        container
        for obj in objects
        if obj["kind"] == "Deployment"
        for container in obj["spec"]["template"]["spec"]["containers"]
        if container["image"].partition(":")[0] == name
    ]
    assert containers, f"no container has the image {name}"
    end = f"@{new['digest']}" if "digest" in new else f":{new['newTag']}"
    for container in containers:
        container["image"] = new.get("newName", name) + end
