"""A run's states are its own: one of another run, or of another update, is not gone on from."""

import json
import shutil

import numpy as np
import pytest

from cappy_select.core.errors import InputError
from cappy_select.train.checkpoints import Checkpoints
from cappy_select.train.compiled import State
from cappy_select.train.config import TrainConfig
from cappy_select.train.optimiser import optimiser_of

OWNER = {"config.seed": 1, "config.learning_rate": 2e-5, "config.buckets": [32, 64], "start": "abc", "pairs": "def"}


def state(update: int) -> State:
    import jax.numpy as jnp

    weights = {"score_kernel": jnp.arange(6, dtype=jnp.float32).reshape(3, 2) + update}
    config = TrainConfig(pairs="p", checkpoint="c")
    return State(weights, optimiser_of(config).init(weights), jnp.int32(update))


def kept(folder, owner, *updates: int):
    with Checkpoints(folder, owner) as checkpoints:
        for update in updates:
            checkpoints.save(update, state(update))
            checkpoints.wait()
            checkpoints.save_best(update, state(update).weights)
    return folder


def newest(folder, owner=OWNER) -> State | None:
    with Checkpoints(folder, owner) as checkpoints:
        return checkpoints.newest(state(0))


def test_a_run_goes_on_from_its_own_states(tmp_path):
    found = newest(kept(tmp_path / "a", OWNER, 3, 5), json.loads(json.dumps(OWNER)))
    assert found is not None
    assert int(found.step) == 5
    assert (np.asarray(found.weights["score_kernel"]) == np.asarray(state(5).weights["score_kernel"])).all()


def test_another_run_s_state_is_refused_and_said_to_be_whose_it_is(tmp_path):
    kept(tmp_path / "a", OWNER, 3)
    kept(tmp_path / "b", OWNER | {"config.seed": 2, "start": "xyz"}, 4)
    shutil.copytree(tmp_path / "b" / "last" / "4", tmp_path / "a" / "last" / "4")
    with pytest.raises(InputError, match=r"last/4 is another run's: config\.seed is 2 there and 1 here; start is"):
        newest(tmp_path / "a")
    assert (tmp_path / "a" / "last" / "4").is_dir()  # nothing is moved


def test_another_run_s_state_under_this_run_s_name_is_refused(tmp_path):
    kept(tmp_path / "a", OWNER, 4)
    kept(tmp_path / "b", OWNER | {"config.seed": 2}, 4)
    names = [path.name for path in (tmp_path / "a" / "last" / "4").iterdir() if path.is_file()]
    for name in names:  # what says whose it is, beside the numbers
        shutil.copyfile(tmp_path / "a" / "last" / "4" / name, tmp_path / "b" / "last" / "4" / name)
    with pytest.raises(InputError, match="another run's, though it says that it is this one's"):
        newest(tmp_path / "b")


def test_best_weights_of_another_run_are_refused(tmp_path):
    kept(tmp_path / "a", OWNER, 4)
    kept(tmp_path / "b", OWNER | {"pairs": "other"}, 4)
    shutil.rmtree(tmp_path / "a" / "best" / "4")
    shutil.copytree(tmp_path / "b" / "best" / "4", tmp_path / "a" / "best" / "4")
    with Checkpoints(tmp_path / "a", OWNER) as checkpoints, pytest.raises(InputError, match="pairs is 'other' there"):
        checkpoints.best(4, state(4).weights)


def test_a_state_of_another_update_is_put_aside(tmp_path):
    kept(tmp_path / "a", OWNER, 3, 5)
    (tmp_path / "a" / "last" / "5").rename(tmp_path / "a" / "last" / "9")
    with pytest.warns(UserWarning, match="update 9 can't be read"):
        found = newest(tmp_path / "a")
    assert found is not None
    assert int(found.step) == 3
