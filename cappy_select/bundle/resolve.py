"""From a name (a folder, a hub id) to a bundle on this disk."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

from cappy_select.bundle import hub
from cappy_select.bundle.bundle import EMBEDDED, Bundle, load_bundle
from cappy_select.bundle.manifest import FORMAT_VERSION, MANIFEST, MODEL, TOKENIZER
from cappy_select.core.errors import BundleNotFound, InputError, MissingExtra

CONVERTERS = "cappy_select.converters"
"""The group of entry points that make a bundle of something else; `checkpoint` is filled by `cappy_select.export`."""


def resolve(source: str | Path | None, *, revision: str | None = None) -> Bundle:
    """The bundle behind a source.

    A hub *checkpoint* is exported once (fp32), cached by commit; that needs the `export` extra.

    Args:
        source: None for the embedded default; a folder; or `hf://org/name`. An existing path wins over every other
            reading.
        revision: Branch, tag or commit of a hub repository.

    Returns:
        The bundle, on this disk.

    Raises:
        InputError: the source is none, or has a `revision` and is no hub id.
        BundleNotFound: there is no such folder or hub repository, or it is neither a bundle nor a checkpoint.
        BundleError: the bundle is damaged, or of a newer format.
        MissingExtra: a hub checkpoint has to be exported first, and the `export` extra is missing.
    """
    if not isinstance(source, str | Path | None):
        raise InputError(f"a scorer is a Scorer, a folder or hf://org/name, got {type(source).__name__}")
    if source is None:
        return load_bundle(EMBEDDED)
    if Path(source).exists() or not str(source).startswith("hf://"):
        if revision is not None:
            raise InputError(f"revision={revision!r} is for hub ids (hf://org/name), got the path {str(source)!r}")
        if not Path(source).exists():
            raise BundleNotFound(
                f"no bundle at {str(source)!r}: it is not a folder, and a hub id is written hf://org/name"
            )
        return load_bundle(source)
    return _from_hub(str(source), revision)


def _from_hub(source: str, revision: str | None) -> Bundle:
    repo = hub.repo_id(source)
    snapshot = hub.fetch(repo, revision, [MANIFEST, "config.json"])
    if (snapshot.path / MANIFEST).exists():
        return load_bundle(hub.fetch(repo, snapshot.commit, [MANIFEST, MODEL, TOKENIZER]).path)
    if not (snapshot.path / "config.json").exists():
        raise BundleNotFound(f"{source} is neither a bundle ({MANIFEST}) nor a checkpoint (config.json)")
    name = f"{repo.replace('/', '--')}@{snapshot.commit[:12]}-fp32-v{FORMAT_VERSION}"
    exported = hub.cache_folder() / "exports" / name
    with hub.locked(exported):  # several workers start at once, and one export is enough
        if not (exported / MANIFEST).is_file():
            for converter in entry_points(group=CONVERTERS, name="checkpoint"):
                converter.load()(source, exported, revision=snapshot.commit)
                break
            else:
                raise MissingExtra("export", "a hub checkpoint as a scorer", "cappy_select.export")
    return load_bundle(exported)
