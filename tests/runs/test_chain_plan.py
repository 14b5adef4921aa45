"""The plan of a chain, without running it."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from yacs.config import CfgNode

from torchreid_ptl.cli.arguments import configure, configure_chain, parse
from torchreid_ptl.config.loading import ConfigError, default_config, load_config, read_files, to_dict
from torchreid_ptl.runs.chain import check_files, check_settings, described, settings_of
from torchreid_ptl.runs.chain_plan import plan
from torchreid_ptl.runs.starts import Start, find_references, find_starts, fits

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
    assert [(start.stage, start.weights) for start in chain.starts] == [(None, "mine.pth"), (None, "mine.pth"), (1, "")]


def test_targets_of_the_file_or_the_command_line_are_those_of_all_stages(chain_of):
    assert chain_of(f"data: {{targets: [cuhk03]}}\n{THREE}").stages[2].config.data.targets == ["cuhk03"]
    chain = chain_of(f"data: {{targets: [cuhk03]}}\n{THREE}", "-t", "msmt17", "market1501", "train.lr", "0.1")
    assert [stage.config.data.targets for stage in chain.stages] == [["msmt17", "market1501"]] * 3


def test_what_can_only_be_trained_on_is_no_target(chain_of, train_only):
    assert chain_of("chain: [pairs, market1501, market1501]\n").common.data.targets == ["market1501"]
    with pytest.raises(ConfigError, match="none of which can be tested on; set data.targets"):
        chain_of("chain: [pairs]\n")
    chain = plan([("chain", ["joined:market1501+msmt17", "msmt17"], "x")], [])
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
        ("chain: []\n", r"chain in .*chain\.yaml has no stages; list at least one, or leave the key out"),
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
        ("chain: [{model: {resume: auto}}]\n", "stage 1 .* sets model.resume: a chain goes on as a whole: --resume"),
        ("chain: [{name: a, train: {lr: 1}}, msmt17, {name: A}]\n", "Stages 1 and 3 of the chain are both called 'a'"),
        ("chain: [{name: msmt17}, msmt17]\n", "Stages 1 and 2 of the chain are both called 'msmt17'"),
        ("chain: [msmt17, {test: {evaluate: True}}]\n", r"test.evaluate is True in stage 2 .*; a chain trains"),
        ("test: {ranks: [5, 10]}\nchain: [msmt17]\n", "test.ranks is .* in stage 1 .*: add it"),
        ("chain: [msmt17, {train: {optim: adan}}]\n", r"Stage 2 \('market1501'\): train.optim is 'adan'"),
        ("chain: [msmt17, {loss: {name: mgn}}]\n", r"Stage 2 \('market1501'\): loss.name mgn is the objective"),
        ("model: {resume: x.pth}\nchain: [msmt17]\n", "model.resume is 'x.pth'; a chain goes on as a whole: --resume"),
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
    assert parse(["train.lr", "0.1", "--dry-run"]).dry_run
    assert configure_chain(parse(["--resume", "chain", "[msmt17]"])).resume
    assert configure_chain(parse(["model.resume", "auto", "chain", "[msmt17]"])).resume
    assert not configure_chain(parse(["chain", "[msmt17]"])).resume
    with pytest.raises(ConfigError, match="--resume means model.resume auto, and model.resume is 'x.pth'"):
        configure(parse(["--resume", "model.resume", "x.pth"]))


def test_a_command_for_one_run_refuses_a_chain(tmp_path):
    (tmp_path / "chain.yaml").write_text(THREE)
    with pytest.raises(ConfigError, match=r"chain\.yaml holds a chain of stages and one run is wanted"):
        load_config(tmp_path / "chain.yaml")


def test_the_written_chain_is_the_same_chain(chain_of, tmp_path):
    text = (
        "model: {name: osnet_x0_25}\ntrain: {stepsize: [3, 5], lr: 0.00001}\nchain:\n"
        "  - msmt17\n  - msmt17\n  - {name: last, model: {name: osnet_x0_25_ptl}, train: {lr: 0.5, max_epoch: 3}}\n"
    )
    chain = chain_of(text, "-t", "cuhk03", "--root", "/data", "train.max_epoch", "9")
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(chain.as_config(), sort_keys=False))
    again = plan(read_files(tmp_path / "again.yaml"), [])
    assert again.stages[2].config.train.max_epoch == 9
    assert to_dict(again.common) == to_dict(chain.common)
    assert again.starts == chain.starts
    for old, new in zip(chain.stages, again.stages, strict=True):
        assert (new.name, new.named, to_dict(new.config)) == (old.name, old.named, to_dict(old.config))


# what stages begin from


def starts_of(*stages, weights=""):
    """Each stage: (model, sources, more settings)."""
    configs = []
    for model, sources, *more in stages:
        config = default_config()
        config.model.load_weights = weights
        config.model.name, config.data.sources = model, sources.split()
        config.merge_from_list([item for pairs in more for item in pairs.items() for item in item])
        configs.append(config)
    return find_starts(configs, [{key for pairs in more for key in pairs} for _, _, *more in stages])


def test_weights_come_from_the_nearest_stage_that_fits():
    starts = starts_of(("a", "x"), ("a_ptl", "y"), ("b", "x"), ("a_ptl", "z"), ("a", "y"), ("a_ptl_v2", "z"))
    assert [start.stage for start in starts] == [None, 0, None, 1, 0, 4]
    assert not any(start.classifier for start in starts if start.stage is not None)


@pytest.mark.parametrize(
    ("model", "earlier", "fit"),
    [("a", "a", True), ("a_ptl", "a", True), ("a_ptl_v2", "a", True), ("a", "a_ptl", False), ("b", "a", False)]
    + [("a_ptl_v2", "a_ptl", False), ("mgn_ptl", "mgn", True), ("ab", "a", False)],
)  # fmt: skip
def test_which_models_fit(model, earlier, fit):
    assert fits(model, earlier) == fit


def test_the_classifier_is_kept_for_the_same_identities_alone():
    later = [("a", "x"), ("a", "x"), ("a", "x y"), ("a", "y x"), ("a", "y x", {"data.combineall": True})]
    assert [start.classifier for start in starts_of(*later)][1:] == [True, False, False, False]
    own = starts_of(("a", "x"), ("a", "x", {"model.load_classifier": False}))
    assert own[1] == Start(0, "", False)


def test_weights_of_the_stage_win_and_those_of_the_file_are_for_who_has_none():
    starts = starts_of(("a", "x"), ("a", "y", {"model.load_weights": "own.pth"}), ("b", "y"), weights="file.pth")
    assert starts == [Start(None, "file.pth", True), Start(None, "own.pth", True), Start(None, "file.pth", True)]


def test_a_stage_may_begin_from_one_it_names():
    def starts(weights, third="x"):
        models = [("x", ""), ("x_ptl", ""), (third, weights)]
        alike = {
            "data": {"root": "", "sources": ["a"], "split_id": 0, "combineall": False},
            "cuhk03": {"labeled_images": False, "classic_split": False},
        }
        configs = [
            CfgNode(
                {**student(model), **alike, "model": {"name": model, "load_weights": file, "load_classifier": True}}
            )
            for model, file in models
        ]
        return find_starts(configs, [(), (), ("model.load_weights",)], ["old", "new", "last"])

    assert starts("old")[2] == Start(0, "", True)
    assert starts("old", "x_ptl")[2] == Start(0, "", True)
    assert starts("file.pth")[2] == Start(None, "file.pth", True)
    with pytest.raises(ConfigError, match=r"Stage 3 \('x'\) begins from stage 2 \('new', "):
        starts("new")
    with pytest.raises(ConfigError, match="name an earlier stage with the same model or its plain backbone"):
        starts("last")


def test_a_stage_without_epochs_hands_on_what_it_began_from():
    tested = {"train.max_epoch": 0}
    starts = starts_of(("a", "x"), ("a", "y", tested), ("a", "x"))
    assert starts[2] == Start(0, "", True)
    starts = starts_of(("a", "x", {"model.load_weights": "own.pth", **tested}), ("a", "y"))
    assert starts[1] == Start(None, "own.pth", True)


def student(model, loss="softmax", **std):
    return CfgNode({"model": {"name": model}, "loss": {"name": loss}, "train": {"start_epoch": 0, "max_epoch": 1},
                    "std": {"teacher": "big", "teacher_weights": "", **std}})  # fmt: skip


def references(*configs):
    return find_references(configs, [f"s{number}" for number in range(1, len(configs) + 1)])


def test_the_teacher_is_the_nearest_earlier_stage_of_its_name():
    chain = [student("big"), student("big"), student("small"), student("small", "std"), student("big")]
    assert references(*chain) == [{}, {}, {}, {"std.teacher_weights": 1}, {}]
    assert references(student("small", "std", teacher_weights="big.pth")) == [{}]
    with pytest.raises(ConfigError, match=r"Stage 2 learns from the teacher 'big' .*Set std.teacher_weights to a file"):
        references(student("small"), student("small", "std"), student("big"))


def test_a_plain_run_needs_no_other_stage():
    assert references(default_config()) == [{}]


def compatible(model="new", old="old", **compat):
    names = {"old": old, "old_weights": "old.pth", "independent": "", **compat}
    return CfgNode({**student(model, "compatible"), "compat": names})


def test_old_and_independent_models_are_named_stages_or_files():
    chain = [student("old"), student("new"), compatible(old_weights="s1", independent="s2"), compatible()]
    assert references(*chain) == [{}, {}, {"compat.old_weights": 0, "compat.independent": 1}, {}]


@pytest.mark.parametrize(
    ("chain", "said"),
    [
        ([compatible(old_weights="s2"), student("old")], r"Stage 1 needs weights of 'old' and names stage 2 \('s2'\)"),
        ([student("other"), compatible(old_weights="s1")], "which has the model 'other'; name an earlier stage"),
        ([student("old"), compatible(independent="s1")], "needs weights of 'new' and names stage 1"),
        ([compatible(old_weights="s1")], "name an earlier stage that trains 'old', or a file"),
    ],
)
def test_a_stage_that_cannot_be_the_old_model(chain, said):
    with pytest.raises(ConfigError, match=said):
        references(*chain)


def test_settings_and_words_of_a_stage(chain_of):
    chain = chain_of("model: {name: osnet_x0_25, pretrained: False}\ntrain: {max_epoch: 4}\n" + THREE)
    first, second = settings_of(chain, 0), settings_of(chain, 1, resume=True)
    assert (first.model.load_weights, first.model.resume) == ("", "")
    assert second.model.load_weights == "log/chain/1-dukemtmcreid/model/model.pth.tar-4"
    assert (second.model.load_classifier, second.model.resume) == (False, "auto")
    assert described(chain, 0) == "trains osnet_x0_25 on dukemtmcreid, beginning from random weights"
    assert described(chain, 1).endswith(f"from {second.model.load_weights} (stage 1), with a new classifier")


def test_files_are_looked_for_before_the_first_stage(chain_of, tmp_path):
    tiny = "drawn_pedestrians_tiny"
    chain = chain_of(f"chain: [{tiny}, {{name: b, model: {{load_weights: {tmp_path}/gone.pth}}}}]\n", "-t", tiny)
    with pytest.raises(FileNotFoundError, match=r"Stage 2 \('b'\): model.load_weights names .*gone\.pth, which is not"):
        check_files(chain)
    chain = chain_of(f"chain: [{tiny}, market1501]\n", "--root", str(tmp_path / "nowhere"), "-t", tiny)
    with pytest.raises(FileNotFoundError, match=r"Stage 2 \('market1501'\): The folder of data set 'market1501'"):
        check_files(chain)


def test_the_examples_of_the_guide_are_chains(chain_of):
    blocks = re.findall(r"```yaml\n(.*?)```", GUIDE, flags=re.DOTALL)
    assert len(blocks) == 2
    first, second = (chain_of(block) for block in blocks)
    check_settings(first)
    assert [stage.folder for stage in first.stages] == ["1-plain", "2-cells", "3-msmt17"]
    assert all(f"`{stage.folder}/`" in GUIDE for stage in first.stages)
    assert [start.stage for start in first.starts] == [None, 0, 1]
    assert first.stages[2].config.train.max_epoch == 10
    assert [stage.name for stage in second.stages] == ["dukemtmcreid", "market1501", "msmt17"]
    assert second.starts[0].weights == "osnet_x0_25_imagenet.pth"
