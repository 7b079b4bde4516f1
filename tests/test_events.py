"""TensorBoard events, read by TensorBoard."""

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from tune_srs import events


def read(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return accumulator


def test_scalars_have_their_own_names_and_go_on_in_a_new_session(tmp_path: Path) -> None:
    folder = tmp_path / "trial_00000"
    events.write_start(folder, ["train.lr"], {"train.lr": 0.1})
    events.write_epoch(folder, 1, {"val/ndcg@10": 0.25, "time/train_s": 2.0})
    events.write_epoch(folder, 2, {"val/ndcg@10": 0.5, "time/train_s": 2.0})
    curve = [(event.step, event.value) for event in read(folder).Scalars("val/ndcg@10")]
    assert curve == [(1, 0.25), (2, 0.5)]
    assert set(read(folder).Tags()["scalars"]) == {"val/ndcg@10", "time/train_s"}


def test_every_parameter_is_a_hyper_parameter(tmp_path: Path) -> None:
    values = {"train.lr": 0.1, "loss.num_negatives": None, "evaluation.exclude_history": True}
    events.write_start(tmp_path, [*values, "loss.rate"], values)
    events.write_end(tmp_path, failed=True)
    contents = read(tmp_path).PluginTagToContent(metadata.PLUGIN_NAME)
    start = HParamsPluginData.FromString(contents[metadata.SESSION_START_INFO_TAG])
    told = start.session_start_info.hparams
    assert told["train.lr"].number_value == 0.1
    assert told["loss.num_negatives"].string_value == "None"
    assert told["evaluation.exclude_history"].bool_value
    assert told["loss.rate"].string_value == "-"  # inactive here
    end = HParamsPluginData.FromString(contents[metadata.SESSION_END_INFO_TAG])
    assert end.session_end_info.status == 2  # failure


def test_a_record_that_was_cut_off_hides_nothing_that_comes_later(tmp_path: Path) -> None:
    for epoch in (1, 2):
        events.write_epoch(tmp_path, epoch, {"val/ndcg@10": 0.25})
    path = tmp_path / events.FILE
    whole = path.read_bytes()
    for cut in (1, 5, 40, len(whole) - 3):
        path.write_bytes(whole[:-cut])
        events.mend(tmp_path)
        events.write_epoch(tmp_path, 3, {"val/ndcg@10": 0.5})
        steps = [event.step for event in read(tmp_path).Scalars("val/ndcg@10")]
        assert steps == ([1, 3] if cut <= 40 else [3])
