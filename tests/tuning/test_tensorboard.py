"""TensorBoard events, read by TensorBoard."""

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from tune_srs.space.parameters import Categorical, Choice, Distribution, Float
from tune_srs.tuning import tensorboard


def read(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return accumulator


def test_scalars_have_their_own_names_and_go_on_in_a_new_session(tmp_path: Path) -> None:
    folder = tmp_path / "trial_00000"
    params: dict[str, Distribution] = {"train.lr": Float(type="float", low=0.01, high=1.0)}
    tensorboard.write_start(folder, params, {"train.lr": 0.1})
    tensorboard.write_epoch(folder, 1, {"val/ndcg@10": 0.25, "time/train_s": 2.0})
    tensorboard.write_epoch(folder, 2, {"val/ndcg@10": 0.5, "time/train_s": 2.0})
    curve = [(event.step, event.value) for event in read(folder).Scalars("val/ndcg@10")]
    assert curve == [(1, 0.25), (2, 0.5)]
    assert set(read(folder).Tags()["scalars"]) == {"val/ndcg@10", "time/train_s"}


def distribution(choices: list[Choice], **when: list[Choice]) -> Distribution:
    return Categorical(type="categorical", choices=choices, when=when)


def test_every_parameter_is_a_hyper_parameter(tmp_path: Path) -> None:
    params: dict[str, Distribution] = {
        "train.lr": Float(type="float", low=0.01, high=1.0),
        "loss.num_negatives": distribution([None, 4]),
        "model.norm_first": distribution([True, False]),
        "loss.rate": distribution([1, 2], parent=[1]),
        "loss.num_positives": distribution([1, 2], parent=[1]),
    }
    values = {"train.lr": 0.1, "loss.num_negatives": None, "model.norm_first": True}
    tensorboard.write_start(tmp_path, params, values | {"loss.num_positives": 2})
    tensorboard.write_end(tmp_path, failed=True)
    contents = read(tmp_path).PluginTagToContent(metadata.PLUGIN_NAME)
    start = HParamsPluginData.FromString(contents[metadata.SESSION_START_INFO_TAG])
    told = start.session_start_info.hparams
    assert set(told) == set(params)
    assert told["train.lr"].number_value == 0.1
    assert told["loss.num_negatives"].string_value == "None"
    assert told["model.norm_first"].bool_value
    assert told["loss.rate"].string_value == "-"  # inactive here
    assert told["loss.num_positives"].string_value == "2"  # text, as it is "-" elsewhere
    end = HParamsPluginData.FromString(contents[metadata.SESSION_END_INFO_TAG])
    assert end.session_end_info.status == 2  # failure


def test_a_record_that_was_cut_off_hides_nothing_that_comes_later(tmp_path: Path) -> None:
    for epoch in (1, 2):
        tensorboard.write_epoch(tmp_path, epoch, {"val/ndcg@10": 0.25})
    path = tmp_path / tensorboard.FILE
    whole = path.read_bytes()
    for cut in (1, 5, 40, len(whole) - 3):
        path.write_bytes(whole[:-cut])
        tensorboard.mend(tmp_path)
        tensorboard.write_epoch(tmp_path, 3, {"val/ndcg@10": 0.5})
        steps = [event.step for event in read(tmp_path).Scalars("val/ndcg@10")]
        assert steps == ([1, 3] if cut <= 40 else [3])
