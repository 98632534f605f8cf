from __future__ import annotations

from tasks import choice, write

from cappy_select.adapt.config import AdaptConfig
from cappy_select.adapt.folder import opened


def test_what_is_begun_anew_takes_away_its_own_store_and_no_copy_of_it(tmp_path):
    instances, out = write(tmp_path / "tasks.jsonl", [choice(number) for number in range(4)]), tmp_path / "out"
    with opened(out, AdaptConfig(models=("openai/a",)), [instances], [], {}):
        pass
    for name in ("samples.db", "samples.db-wal", "samples.db.before", "samples.db.gz"):
        (out / name).write_bytes(b"")
    with opened(out, AdaptConfig(models=("openai/b",)), [instances], [], {}):
        pass
    assert {path.name for path in out.glob("samples*")} == {"samples.db.before", "samples.db.gz"}
