"""What a training needs, and what it made, in parts that are small enough to be carried between machines.

    python recipes/prepare/parts.py shrink encoder --out carried/weights.npz
    python recipes/prepare/parts.py split pairs-short/train-*.parquet carried/weights.npz --out carried --mib 15

and where they have arrived

    python recipes/prepare/parts.py join carried --out here
    python recipes/prepare/parts.py grow here/weights.npz --like encoder-files --out encoder

`shrink` keeps the matrices of a checkpoint in 8 bits (a scale a row), everything else in 16: a quarter of the size. The
updates that follow make up for the rounding. `--like` is a folder with the checkpoint's configuration and tokenizer.
`join` checks the SHA-256 of each part, and joins those files of which all parts are there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

WEIGHTS, LIST = "model.safetensors", "parts.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, takes in (
        ("shrink", "a checkpoint's folder"),
        ("grow", "what shrink wrote"),
        ("join", "a folder of parts"),
    ):
        verbs.add_parser(verb).add_argument("source", type=Path, help=takes)
    verbs.choices["grow"].add_argument("--like", type=Path, required=True, help="a folder with config and tokenizer")
    verbs.add_parser("split").add_argument("files", type=Path, nargs="+")
    verbs.choices["split"].add_argument("--mib", type=float, default=15.0, help="of a part at most (default 15)")
    for each in verbs.choices.values():
        each.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    try:
        if given.verb == "shrink":
            shrink(given.source, given.out)
        elif given.verb == "grow":
            grow(given.source, given.like, given.out)
        elif given.verb == "split":
            split(given.files, given.out, int(given.mib * 2**20))
        else:
            join(given.source, given.out)
    except (OSError, ValueError) as error:
        sys.exit(str(error))


def shrink(checkpoint: Path, out: Path) -> None:
    """A checkpoint's weights into one file: matrices in 8 bits with a scale a row, everything else in 16."""
    kept: dict[str, np.ndarray] = {}
    for name, value in load_file(checkpoint / WEIGHTS).items():
        if value.ndim == 2 and value.dtype.kind == "f":
            scale = np.abs(value).max(axis=1, keepdims=True).astype(np.float32) / 127
            scale[scale == 0] = 1
            kept[f"{name}/int8"], kept[f"{name}/scale"] = np.rint(value / scale).astype(np.int8), scale
        else:
            kept[name] = value.astype(np.float16) if value.dtype.kind == "f" else value
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("wb") as file:
        np.savez_compressed(file, **kept)


def grow(shrunk: Path, like: Path, out: Path) -> None:
    """What `shrink` wrote as a checkpoint again, with the other files of `like`."""
    with np.load(shrunk, allow_pickle=False) as kept:
        weights = {}
        for name in kept.files:
            stem, _, part = name.rpartition("/")
            if part == "int8":
                weights[stem] = kept[name].astype(np.float32) * kept[f"{stem}/scale"]
            elif part != "scale":
                weights[name] = kept[name].astype(np.float32) if kept[name].dtype.kind == "f" else kept[name]
    shutil.copytree(like, out, ignore=shutil.ignore_patterns(WEIGHTS))
    save_file(weights, out / WEIGHTS, metadata={"format": "pt"})


def split(files: list[Path], out: Path, size: int) -> None:
    """Files into parts of at most so many bytes, and the list of these with their hashes."""
    if size < 1:
        raise ValueError("--mib must be more than 0")
    out.mkdir(parents=True, exist_ok=True)
    hashes: dict[str, str] = {}
    for file in files:
        with file.open("rb") as whole:
            number = 0
            while (part := whole.read(size)) or not number:
                name = f"{file.name}.{number:03}"
                (out / name).write_bytes(part)
                hashes[name] = hashlib.sha256(part).hexdigest()
                number += 1
    (out / LIST).write_text(json.dumps(hashes, indent=1) + "\n")
    print(f"{out}: {len(hashes)} parts of {len(files)} files", file=sys.stderr)


def join(parts: Path, out: Path) -> None:
    """The files of which all parts are there. Raises ValueError for a part that is not what was split."""
    of_file: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for name, sha256 in json.loads((parts / LIST).read_text()).items():
        of_file[Path(name).stem].append((name, sha256))
    out.mkdir(parents=True, exist_ok=True)
    for file, listed in of_file.items():
        if missing := [name for name, _ in listed if not (parts / name).is_file()]:
            print(f"{file}: {len(missing)} of {len(listed)} parts are not there yet", file=sys.stderr)
            continue
        with (out / file).open("wb") as whole:
            for name, sha256 in sorted(listed):
                content = (parts / name).read_bytes()
                if hashlib.sha256(content).hexdigest() != sha256:
                    raise ValueError(f"{parts / name} is not the part that was split: carry it again")
                whole.write(content)


if __name__ == "__main__":
    main()
