"""State files: trained tensors without their model, loaded without running any code."""

import shutil

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from llama_models import llama  # noqa: E402

from selectmoe_core.errors import ModelError  # noqa: E402
from selectmoe_core.models.models import ModelRef, Models  # noqa: E402
from selectmoe_core.store import FileHashes  # noqa: E402

NORM = "model.norm.weight"


class Code:
    """Runs when it is unpickled without care."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('ran')",))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "base"
    llama(folder)
    return folder


@pytest.fixture
def base(made, tmp_path):
    return shutil.copytree(made, tmp_path / "base")


def size(base):
    return Models().load(ModelRef(str(base)), dtype="float32", device="cpu").config.hidden_size


def state(path, content):
    torch.save(content, path)
    return path


def load(path, base):
    return Models().load(ModelRef(str(path), base=str(base)), dtype="float32", device="cpu")


WRAPS = (lambda t: t, lambda t: {"full_rank_weights": t, "mode": "module"})


@pytest.mark.parametrize("wrap", WRAPS)
def test_the_tensors_replace_those_of_the_base(base, tmp_path, wrap):
    tensor = torch.arange(float(size(base)))
    path = state(tmp_path / "full_rank_weights.pt", wrap({NORM: tensor}))
    model = load(path, base)
    assert torch.equal(model.get_parameter(NORM), tensor)
    plain = Models().load(ModelRef(str(base)), dtype="float32", device="cpu")
    same = [
        name
        for name, weight in model.named_parameters()
        if torch.equal(weight, plain.get_parameter(name))
    ]
    assert set(dict(plain.named_parameters())) - set(same) == {NORM}
    models, ref = Models(), ModelRef(str(path), base=str(base))
    models.check(ref)
    assert models.config(ref) == models.config(ModelRef(str(base)))
    assert models.tokenizer(ref).get_vocab() == models.tokenizer(ModelRef(str(base))).get_vocab()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"no.such.weight": torch.zeros(3)}, "1 of 1 tensors are not in .*no.such.weight"),
        ({NORM: torch.zeros(3)}, r"has the shape \(3,\), and in"),
        ({NORM: 3.0}, "is no tensor but float"),
        ({}, "holds no tensors by name"),
        ([torch.zeros(3)], "holds no tensors by name"),
        ({NORM: Code()}, "holds more than tensors"),
    ],
)
def test_what_does_not_fit_is_an_error_and_runs_no_code(base, tmp_path, content, message):
    path = state(tmp_path / "state.pt", content)
    with pytest.raises(ModelError, match=message):
        load(path, base)


def test_a_damaged_file_is_an_error_before_the_first_stage(base, tmp_path):
    path = tmp_path / "state.pt"
    path.write_bytes(b"PK but no archive")
    with pytest.raises(ModelError, match="cannot be read as a state file"):
        Models().check(ModelRef(str(path), base=str(base)))


def test_a_state_file_without_a_base_is_an_error(base, tmp_path):
    path = state(tmp_path / "state.pt", {NORM: torch.zeros(size(base))})
    for use in (Models().check_place, Models().check, Models().config, Models().tokenizer):
        with pytest.raises(ModelError, match="holds trained tensors, not a model"):
            use(ModelRef(str(path)))


def test_the_digest_covers_the_file_and_its_base(base, tmp_path):
    path = state(tmp_path / "state.pt", {NORM: torch.zeros(size(base))})
    ref, found = ModelRef(str(path), base=str(base)), set()
    found.add(Models().digest(ref, FileHashes(None)))
    state(path, {NORM: torch.ones(size(base))})
    found.add(Models().digest(ref, FileHashes(None)))
    (base / "config.json").write_text((base / "config.json").read_text() + " ")
    found.add(Models().digest(ref, FileHashes(None)))
    assert len(found) == 3
    assert None not in found
