"""The plan of a chain, without running it."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from helpers import configure, configure_chain, parse

from torchreid_ptl.cli.train import read
from torchreid_ptl.config.loading import ConfigError, load_config, to_dict
from torchreid_ptl.config.request import Request
from torchreid_ptl.runs import Chain
from torchreid_ptl.runs.chain_plan import fits

GUIDE = (Path(__file__).parents[2] / "docs" / "chains.md").read_text()
THREE = "chain: [dukemtmcreid, market1501, msmt17]\n"


@pytest.fixture
def chain_of(tmp_path):
    """Writes a file and plans it, as the command does."""

    def build(text, *arguments):
        (tmp_path / "chain.yaml").write_text(text)
        return configure_chain(parse(["--config-file", str(tmp_path / "chain.yaml"), *arguments]))

    return build


@pytest.fixture
def train_only(monkeypatch):
    """A data set without a test set."""
    from torchreid_ptl import host

    monkeypatch.setitem(host.image_datasets(), "pairs", SimpleNamespace(train_only=True))


def test_names_of_data_sets_are_stages(chain_of):
    chain = chain_of(f"train: {{max_epoch: 7}}\n{THREE}")
    names = ["dukemtmcreid", "market1501", "msmt17"]
    assert [stage.name for stage in chain.stages] == names
    assert [stage.folder for stage in chain.stages] == ["1-dukemtmcreid", "2-market1501", "3-msmt17"]
    assert [stage.config.data.sources for stage in chain.stages] == [[name] for name in names]
    assert [stage.config.data.targets for stage in chain.stages] == [names] * 3
    assert {stage.config.train.max_epoch for stage in chain.stages} == {7}
    assert chain.stages[1].config.data.save_dir == str(Path("log/chain") / "2-market1501")


def test_a_file_without_a_chain_is_a_single_run(chain_of):
    assert chain_of("train: {max_epoch: 7}\n") is None


def test_the_stage_wins_over_the_file_and_the_command_line_over_both(chain_of):
    chain = chain_of(
        "train: {lr: 0.1, max_epoch: 7, batch_size: 8}\n"
        "chain: [{train: {lr: 0.2, max_epoch: 3}, name: slow}, market1501]\n",
        "--root", "/data", "train.max_epoch", "1", "data.save_dir", "elsewhere",
    )  # fmt: skip
    first, second = (stage.config for stage in chain.stages)
    assert (first.train.lr, first.train.max_epoch, first.train.batch_size) == (0.2, 1, 8)
    assert (second.train.lr, second.train.max_epoch) == (0.1, 1)
    assert (first.data.root, second.data.root) == ("/data", "/data")
    assert first.data.save_dir == "elsewhere/1-slow"


def test_weights_of_the_command_line_are_the_files(chain_of):
    own = "{name: own, model: {load_weights: own.pth}}"
    chain = chain_of(f"chain: [market1501, {own}, msmt17]\n", "model.load_weights", "mine.pth")
    assert [stage.start for stage in chain.stages] == [None, None, 1]
    assert [stage.config.model.load_weights for stage in chain.stages[:2]] == ["mine.pth", "mine.pth"]


def test_targets_of_the_file_or_the_command_line_are_those_of_all_stages(chain_of):
    assert chain_of(f"data: {{targets: [cuhk03]}}\n{THREE}").stages[2].config.data.targets == ["cuhk03"]
    chain = chain_of(f"data: {{targets: [cuhk03]}}\n{THREE}", "-t", "msmt17", "market1501", "train.lr", "0.1")
    assert [stage.config.data.targets for stage in chain.stages] == [["msmt17", "market1501"]] * 3


def test_what_can_only_be_trained_on_is_no_target(chain_of, train_only):
    assert chain_of("chain: [pairs, market1501, market1501]\n").common.data.targets == ["market1501"]
    with pytest.raises(ConfigError, match="none of which can be tested on; set data.targets"):
        chain_of("chain: [pairs]\n")
    chain = Chain.of(Request((("chain", ["joined:market1501+msmt17", "msmt17"], "x"),)))
    assert chain.common.data.targets == ["msmt17"]
    assert chain.stages[0].folder == "1-joined-market1501+msmt17"


def test_the_nearest_files_chain_is_inherited(chain_of, tmp_path):
    (tmp_path / "base.yaml").write_text(f"train: {{max_epoch: 7}}\n{THREE}")
    (tmp_path / "middle.yaml").write_text("_BASE_: base.yaml\ntrain: {lr: 0.5}\n")
    chain = chain_of("_BASE_: middle.yaml\n")
    assert [stage.name for stage in chain.stages] == ["dukemtmcreid", "market1501", "msmt17"]
    assert (chain.common.train.max_epoch, chain.common.train.lr) == (7, 0.5)
    assert len(chain_of("_BASE_: middle.yaml\nchain: [msmt17]\n").stages) == 1


def test_a_chain_from_the_command_line():
    for text in ("[dukemtmcreid, market1501]", "['dukemtmcreid', 'market1501']"):
        chain = configure_chain(parse(["-t", "msmt17", "chain", text, "train.lr", "0.5"]))
        assert [stage.name for stage in chain.stages] == ["dukemtmcreid", "market1501"]
        assert chain.common.data.targets == ["msmt17"]
    with pytest.raises(ConfigError, match="on the command line; expected a list such as"):
        configure_chain(parse(["chain", "[a"]))


def test_names_and_folders(chain_of):
    chain = chain_of(
        "chain: [market1501, {data: {sources: [market1501, msmt17]}}, {name: 'a/b: c', train: {lr: 0.1}}, market1501]\n"
    )
    assert [stage.name for stage in chain.stages] == ["market1501", "market1501+msmt17", "a/b: c", "market1501"]
    assert [stage.folder for stage in chain.stages][1:] == ["2-market1501+msmt17", "3-a-b--c", "4-market1501"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("chain: []\n", r"chain in .*chain\.yaml has no stages; list at least one, or remove the key"),
        ("chain: market1501\n", r"is 'market1501' \(str\); expected a list of stages"),
        ("chain: {data: {root: x}}\n", r"\(dict\); expected a list of stages"),
        ("chain:\n", r"is None \(NoneType\); expected a list"),
        ("chain: [market1501, 5]\n", r"stage 2 of the chain in .* is 5 \(int\); expected the name of a data set, or"),
        ("chain: [{name: 3}]\n", r"name in stage 1 of .* is 3 \(int\); expected a text"),
        ("chain: [{name: ' '}]\n", "name in stage 1 of .* expected a text"),
        ("chain: [msmt17, {train: {lrr: 1}}]\n", r"Unknown key 'train.lrr' in stage 2 .*: did you mean 'train.lr'\?"),
        ("chain: [{chain: [msmt17]}]\n", "stage 1 of the chain in .* holds a chain"),
        ("chain: [{train: {lr: high}}]\n", r"train.lr in stage 1 of .* is 'high' \(str\); expected a number"),
        ("chain: [msmt17, markt1501]\n", "Stage 2 of the chain trains on 'markt1501'.*did you mean 'market1501'"),
        ("chain: [msmt17, 'joined:msmt17+markt']\n", "Stage 2 of the chain: .*markt"),
        ("chain: [{data: {targets: [msmt17]}}]\n", "stage 1 .* sets data.targets: the summary compares all stages"),
        ("chain: [{data: {save_dir: x}}]\n", "stage 1 .* sets data.save_dir: a stage has a folder in that of the"),
        ("chain: [{model: {resume: auto}}]\n", "stage 1 .* sets model.resume: stages are resumed together: --resume"),
        ("chain: [{name: a, train: {lr: 1}}, msmt17, {name: A}]\n", "Stages 1 and 3 of the chain are both called 'a'"),
        ("chain: [{name: msmt17}, msmt17]\n", "Stages 1 and 2 of the chain are both called 'msmt17'"),
        ("chain: [msmt17, {test: {evaluate: True}}]\n", r"test.evaluate is True in stage 2 .*; a chain trains"),
        ("test: {ranks: [5, 10]}\nchain: [msmt17]\n", "test.ranks is .* in stage 1 .*: add it"),
        ("chain: [msmt17, {train: {optim: adan}}]\n", r"Stage 2 \('market1501'\): train.optim is 'adan'"),
        ("chain: [msmt17, {loss: {name: mgn}}]\n", r"Stage 2 \('market1501'\): loss.name mgn is the objective"),
        ("model: {resume: x.pth}\nchain: [msmt17]\n", "model.resume is 'x.pth'; stages are resumed together: --resume"),
        ("data: {targets: [nowhere]}\nchain: [msmt17]\n", r"Stage 1 \('msmt17'\): data.sources and data.targets is"),
    ],
)  # fmt: skip
def test_what_cannot_work_names_the_stage(chain_of, text, message):
    with pytest.raises(ConfigError, match=message):
        chain_of(text)


@pytest.mark.parametrize("arguments", [["-s", "market1501"], ["data.sources", "['market1501']"]])
def test_sources_of_the_command_line_are_refused(chain_of, arguments):
    with pytest.raises(ConfigError, match=r"-s \(data.sources\) is .* each stage of a chain trains on data sets"):
        chain_of(THREE, *arguments)


def test_resume_is_auto():
    assert configure(parse(["--resume"])).model.resume == "auto"
    assert configure(parse(["train.lr", "0.1", "--resume"])).model.resume == "auto"
    assert read(["train.lr", "0.1", "--dry-run"]).dry_run
    assert configure_chain(parse(["--resume", "chain", "[msmt17]"])).resume
    assert configure_chain(parse(["model.resume", "auto", "chain", "[msmt17]"])).resume
    assert not configure_chain(parse(["chain", "[msmt17]"])).resume
    with pytest.raises(ConfigError, match="--resume means model.resume auto, and model.resume is 'x.pth'"):
        configure(parse(["--resume", "model.resume", "x.pth"]))


def test_a_command_for_one_run_refuses_a_chain(tmp_path):
    (tmp_path / "chain.yaml").write_text(THREE)
    with pytest.raises(ConfigError, match=r"chain\.yaml holds a chain of stages and one run is needed"):
        load_config(tmp_path / "chain.yaml")


def test_the_written_chain_is_the_same_chain(chain_of, tmp_path):
    text = (
        "model: {name: osnet_x0_25}\ntrain: {stepsize: [3, 5], lr: 0.00001}\nchain:\n"
        "  - msmt17\n  - msmt17\n  - {name: last, model: {name: osnet_x0_25_ptl}, train: {lr: 0.5, max_epoch: 3}}\n"
    )
    chain = chain_of(text, "-t", "cuhk03", "--root", "/data", "train.max_epoch", "9")
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(chain.as_config(), sort_keys=False))
    again = Chain.of(tmp_path / "again.yaml")
    assert again.stages[2].config.train.max_epoch == 9
    assert to_dict(again.common) == to_dict(chain.common)
    assert [stage.start for stage in again.stages] == [stage.start for stage in chain.stages]
    for old, new in zip(chain.stages, again.stages, strict=True):
        assert (new.name, new.named, to_dict(new.config)) == (old.name, old.named, to_dict(old.config))


# what stages begin from

A, B = "osnet_x0_25", "resnet18"


def chain_of_models(*stages, **settings):
    """Each stage: (model, sources, more settings by dotted keys)."""
    items = []
    for model, sources, *more in stages:
        item = {"model": {"name": model}, "data": {"sources": sources.split()}}
        for key, value in (more[0] if more else {}).items():
            *sections, name = key.split(".")
            if sections:
                item.setdefault(sections[0], {})[name] = value
            else:
                item[name] = value
        items.append(item)
    return Chain.of({"chain": items, "data": {"targets": ["prid"]}}, **settings)


def starts_of(*stages, **settings):
    return [stage.start for stage in chain_of_models(*stages, **settings).stages]


def test_a_stage_begins_from_the_stage_before_it_where_that_fits():
    stages = [(A, "viper"), (f"{A}_ptl", "grid"), (B, "viper"), (B, "prid"), (A, "grid"), (f"{A}_ptl_v2", "viper")]
    assert starts_of(*stages) == [None, 0, None, 2, None, 4]
    chain = chain_of_models(*stages)
    assert not any(stage.config.model.load_classifier for stage in chain.stages if stage.start is not None)


@pytest.mark.parametrize(
    ("model", "earlier", "fit"),
    [("a", "a", True), ("a_ptl", "a", True), ("a_ptl_v2", "a", True), ("a", "a_ptl", False), ("b", "a", False)]
    + [("a_ptl_v2", "a_ptl", False), ("mgn_ptl", "mgn", True), ("ab", "a", False)],
)  # fmt: skip
def test_which_models_fit(model, earlier, fit):
    assert fits(model, earlier) == fit


def test_the_classifier_is_kept_for_the_same_identities_alone():
    later = [(A, "viper"), (A, "viper"), (A, "viper grid"), (A, "grid viper")]
    later.append((A, "grid viper", {"data.combineall": True}))
    kept = [stage.config.model.load_classifier for stage in chain_of_models(*later).stages]
    assert kept[1:] == [True, False, False, False]
    own = chain_of_models((A, "viper"), (A, "viper", {"model.load_classifier": False})).stages[1]
    assert (own.start, own.config.model.load_classifier) == (0, False)


def test_weights_of_the_stage_win_and_those_of_the_file_are_for_who_has_none():
    stages = (A, "viper"), (A, "grid", {"model.load_weights": "own.pth"}), (B, "grid")
    chain = chain_of_models(*stages, model={"load_weights": "file.pth"}, **{"model.pretrained": False})
    assert [stage.start for stage in chain.stages] == [None] * 3
    files = chain_of_models(*stages).stages
    assert [stage.config.model.load_weights for stage in files] == ["", "own.pth", ""]
    empty = chain_of_models((A, "viper"), (A, "grid", {"model.load_weights": ""}))
    assert empty.stages[1].start is None


def test_a_stage_may_begin_from_one_it_names():
    def last(weights, third=A, name="last"):
        stages = [(A, "viper", {"name": "old"}), (f"{A}_ptl", "viper", {"name": "new"})]
        return chain_of_models(*stages, (third, "viper", {"name": name, "model.load_weights": weights})).stages[2]

    for model in (A, f"{A}_ptl"):
        stage = last("old", model)
        assert (stage.start, stage.config.model.load_classifier) == (0, True)
        assert stage.config.model.load_weights == "log/1-old/model/model.pth.tar-60"
    assert (last("file.pth").start, last("file.pth").config.model.load_weights) == (None, "file.pth")
    with pytest.raises(ConfigError, match=r"Stage 3 \('osnet_x0_25'\) begins from 'new' \(model.load_weights\)"):
        last("new")
    with pytest.raises(ConfigError, match="no earlier stage with the same model or its plain backbone; name one"):
        last("last")


def test_a_stage_without_epochs_hands_on_what_it_began_from():
    tested = {"train.max_epoch": 0}
    chain = chain_of_models((A, "viper"), (A, "grid", tested), (A, "viper"))
    assert (chain.stages[2].start, chain.stages[2].config.model.load_classifier) == (0, True)
    chain = chain_of_models((A, "viper", {"model.load_weights": "own.pth", **tested}), (A, "grid"))
    assert chain.stages[1].start is None
    assert chain.stages[1].config.model.load_weights == "own.pth"


STUDENT = {"loss.name": "std", "std.teacher": B}


def references(*stages):
    return [dict(stage.references) for stage in chain_of_models(*stages).stages]


def test_the_teacher_is_the_stage_before_or_one_that_is_named():
    assert references((B, "viper"), (A, "viper", STUDENT)) == [{}, {"std.teacher_weights": 0}]
    named = {**STUDENT, "std.teacher_weights": "big"}
    assert references((B, "viper", {"name": "big"}), (A, "viper"), (A, "viper", named))[2] == {"std.teacher_weights": 0}
    assert references((A, "viper", {**STUDENT, "std.teacher_weights": "big.pth"})) == [{}]
    message = r"Stage 3 needs weights of 'resnet18' for its teacher \(std.teacher_weights\) and names none: name an"
    with pytest.raises(ConfigError, match=message):
        references((B, "viper"), (A, "viper"), (A, "viper", STUDENT))


def test_a_plain_run_needs_no_other_stage():
    assert references((A, "viper")) == [{}]


def compatible(**compat):
    names = {"old": B, "old_weights": "old.pth", **compat}
    return {"loss.name": "compatible", **{f"compat.{key}": value for key, value in names.items()}}


def test_old_and_independent_models_are_named_stages_or_files():
    first, second = (B, "viper", {"name": "s1"}), (A, "viper", {"name": "s2"})
    both = (A, "viper", compatible(old_weights="s1", independent="s2"))
    expected = {"compat.old_weights": 0, "compat.independent": 1}
    assert references(first, second, both, (A, "viper", compatible())) == [{}, {}, expected, {}]


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (
            [(A, "viper", {"name": "s1", **compatible(old_weights="s1")})],
            r"Stage 1 needs weights of 'resnet18' for its",
        ),
        (
            [(A, "viper", {"name": "s1"}), (A, "viper", compatible(old_weights="s1"))],
            r"and names 's1': name an earlier",
        ),
        ([(B, "viper", {"name": "s1"}), (A, "viper", compatible(independent="s1"))], "needs weights of 'osnet_x0_25'"),
    ],
)
def test_a_stage_that_cannot_be_the_old_model(stages, message):
    with pytest.raises(ConfigError, match=message):
        references(*stages)


def test_settings_and_words_of_a_stage(chain_of):
    chain = chain_of("model: {name: osnet_x0_25, pretrained: False}\ntrain: {max_epoch: 4}\n" + THREE)
    first, second = (stage.config for stage in chain.stages[:2])
    assert (first.model.load_weights, first.model.resume) == ("", "")
    assert second.model.load_weights == "log/chain/1-dukemtmcreid/model/model.pth.tar-4"
    assert second.model.load_classifier is False
    words = [chain.describe(stage) for stage in chain.stages]
    assert words[0] == "trains osnet_x0_25 on dukemtmcreid, beginning from random weights"
    assert words[1].endswith(f"from {second.model.load_weights} (stage 1), with a new classifier")


def test_files_are_looked_for_before_the_first_stage(chain_of, tmp_path):
    tiny = "drawn_pedestrians_tiny"
    chain = chain_of(f"chain: [{tiny}, {{name: b, model: {{load_weights: {tmp_path}/gone.pth}}}}]\n", "-t", tiny)
    with pytest.raises(
        FileNotFoundError, match=r"Stage 2 \('b'\): model.load_weights names .*gone\.pth, which does not exist"
    ):
        chain.check_files()
    chain = chain_of(f"chain: [{tiny}, market1501]\n", "--root", str(tmp_path / "nowhere"), "-t", tiny)
    with pytest.raises(FileNotFoundError, match=r"Stage 2 \('market1501'\): The folder of data set 'market1501'"):
        chain.check_files()


def test_the_examples_of_the_guide_are_chains(chain_of):
    blocks = re.findall(r"```yaml\n(.*?)```", GUIDE, flags=re.DOTALL)
    assert len(blocks) == 2
    first, second = (chain_of(block) for block in blocks)
    assert [stage.folder for stage in first.stages] == ["1-plain", "2-cells", "3-msmt17"]
    assert all(f"`{stage.folder}/`" in GUIDE for stage in first.stages)
    assert [stage.start for stage in first.stages] == [None, 0, 1]
    assert first.stages[2].config.train.max_epoch == 10
    assert [stage.name for stage in second.stages] == ["dukemtmcreid", "market1501", "msmt17"]
    assert second.stages[0].config.model.load_weights == "osnet_x0_25_imagenet.pth"
