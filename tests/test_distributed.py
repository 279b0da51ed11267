"""Several processes train as one: the same losses, weights and predictions up to rounding, and one end for all."""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy
import pytest
import torch
from hypothesis import given, strategies

from severity.core import runs
from severity.core.errors import SeverityError
from severity.core.runs import Run
from severity.networks import backbones, inference, loading, processes
from severity.networks import images as module_of_images
from severity.networks.group import Group
from severity.networks.images import Augmentation
from severity.training import checkpoint, training
from tests import test_training as single
from tests.trees import TOP

CPU = torch.device("cpu")
EVERY_STEP = single.OPTIONS["augmentation"] | {"flip": 0.5, "gamma": 0.2, "noise": 0.1, "erase": 0.5}


@pytest.fixture(scope="module", autouse=True)
def three_cores():
    """Two and three processes are few enough for any machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "cores", lambda: 3)
        yield


# Name of the loss, its params, and the options of training.
CASES = {
    "ce": ("ce", {}, {}),
    "empty truth": ("ce", {}, {"epochs": 2}),
    "masked": ("bce", {"pos_weight": "balanced"}, {"epochs": 2}),
    "pairs": ("haf", {}, {"epochs": 2}),
    "own weights": ("barz_denzler", {}, {"epochs": 2}),
    "changes on the way": ("hbce", {"finetune_epochs": 1}, {"epochs": 2}),
    "options": ("hxe", {}, {"epochs": 2, "mixup": 0.3, "ema": 0.9, "accumulate": 3, "augmentation": EVERY_STEP}),
}


def data(case: str):
    """The images of tests/test_training.py, some without a label, some with masked ones."""
    images, train, validation = single.collection()
    targets = train.targets.copy()
    if case == "empty truth":
        targets[::3] = 0
        targets[1] = numpy.nan
    if case == "masked":
        targets[numpy.random.default_rng(0).random(targets.shape) < 0.4] = numpy.nan
    return images, training.Split(train.rows, targets), validation


def fit(case: str, group: Group, scratch: Path | None, network=single.bare_network, **changes):
    name, params, options = CASES[case]
    loss = single.loss(name, **params)
    images, train, validation = data(case)
    return training.fit(
        network(loss.outputs), loss, images, train, validation, Run("net", name, 0), scratch, group,
        **{"cost": single.costs.lca_height(single.TREE), **single.OPTIONS, **options, **changes},
    )  # fmt: skip


@contextlib.contextmanager
def noting_steps():
    """The losses of all batches, as they are computed."""
    noted, real = [], training.gradient

    def gradient(*args):
        value = real(*args)
        noted.append(float(value))
        return value

    training.gradient = gradient
    try:
        yield noted
    finally:
        training.gradient = real


def resnet(outputs: int) -> torch.nn.Module:
    torch.manual_seed(0)
    return backbones.build(model="test_resnet", pretrained=False, outputs=outputs)


def own_answers(group: Group) -> dict:
    """What one of the processes finds; the tests below compare it with what one process alone finds."""
    torch.set_num_threads(1)
    found = {}
    for case in CASES:
        with noting_steps() as steps:
            weights, history = fit(case, group, None)
        found[case] = (steps, weights, history)
    found["frozen"] = fit("ce", group, None, resnet, epochs=1, freeze_epochs=1)[0]
    found["batch norm"] = fit("ce", group, None, single.network, epochs=2)
    images = numpy.arange(13 * 4, dtype=numpy.uint8).reshape(13, 2, 2)
    found["order"] = {
        count: inference.logits(torch.nn.Flatten(), images, rows(count), batch_size=2, on=CPU, group=group)
        for count in (1, 2, 3, 5, 13)
    }
    return found


def rows(count: int) -> numpy.ndarray:
    return numpy.arange(13)[::-1][:count]


def _answer(group: Group, folder: Path) -> None:
    # One with room for the state of the unfinished run, the others without: the first alone may use it.
    with noting_first(group, folder):
        (folder / f"{group.size}-{group.rank}").write_bytes(pickle.dumps(own_answers(group)))


@contextlib.contextmanager
def noting_first(group: Group, folder: Path):
    real = checkpoint.Checkpoint

    def made(scratch):
        assert group.first
        return real(folder)

    training.Checkpoint = made
    try:
        yield
    finally:
        training.Checkpoint = real


@pytest.fixture(scope="module", params=[2, 3])
def together(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("answers")
    processes.start(_answer, folder, devices=request.param, device="cpu")
    return [pickle.loads((folder / f"{request.param}-{rank}").read_bytes()) for rank in range(request.param)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    with noting_first(Group(), tmp_path_factory.mktemp("alone")):
        return own_answers(Group())


@pytest.mark.parametrize("case", CASES)
def test_every_step_has_the_loss_and_the_end_has_the_weights_of_one_process(case, together, alone):
    steps, weights, history = alone[case]
    for theirs, found, told in (each[case] for each in together):
        assert theirs == pytest.approx(steps, rel=2e-5, abs=1e-6)
        assert found.keys() == weights.keys()
        assert all(torch.allclose(found[key], value, atol=1e-5) for key, value in weights.items())
        assert numpy.allclose(told, history, atol=1e-5)


def test_frozen_layers_stay_and_the_classifier_learns_the_same(together, alone):
    for each in together:
        assert all(torch.allclose(each["frozen"][key], value, atol=1e-5) for key, value in alone["frozen"].items())


def test_batch_norm_differs_but_all_processes_agree(together, alone):
    (first, history), *others = (each["batch norm"] for each in together)
    for weights, told in others:
        assert all(torch.equal(first[key], value) for key, value in weights.items())
        assert told.equals(history)
    ours = alone["batch norm"][0]
    mean, whole = first["2.running_mean"], ours["2.running_mean"]
    assert not torch.equal(mean, whole) and torch.allclose(mean, whole, atol=0.2)


def test_predictions_are_complete_and_in_order(together, alone):
    for each in together:
        for count, expected in alone["order"].items():
            assert torch.equal(each["order"][count], expected)
    assert (alone["order"][13][:, 0] * 255).round().tolist() == (4 * rows(13)).tolist()


# --- what goes wrong ------------------------------------------------------------------------------------------------


class Spoiled(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images * torch.nan


def _one_diverges(group: Group, folder: Path) -> None:
    (folder / str(os.getpid())).touch()

    def network(outputs):
        net = single.bare_network(outputs)
        return torch.nn.Sequential(net, Spoiled()) if group.rank == 1 else torch.nn.Sequential(net, torch.nn.Identity())

    fit("ce", group, folder / "state" if group.first else None, network)


def test_no_number_in_one_process_stops_all_and_is_told_once(tmp_path, capfd):
    with pytest.raises(SeverityError, match="net-ce-0: in epoch 1, step 1 of 5, the training loss became nan"):
        processes.start(_one_diverges, tmp_path, devices=2, device="cpu")
    assert gone(tmp_path) == 2
    assert "Traceback" not in capfd.readouterr().err


def gone(folder: Path) -> int:
    """How many processes left their number in the folder; none of them may live."""
    numbers = [int(path.name) for path in folder.iterdir() if path.name.isdigit()]
    for number in numbers:
        assert not Path(f"/proc/{number}").exists(), f"process {number} was left behind"
    return len(numbers)


def _train(group: Group, folder: Path, killed_in: int | None) -> None:
    """Train, saving after every epoch; process 1 perhaps kills itself."""
    torch.set_num_threads(1)
    (folder / str(os.getpid())).touch()
    checkpoint.SECONDS = checkpoint.TIMES = -1
    real = training.train_epoch

    def train_epoch(*args, epoch, **rest):
        if epoch == killed_in and group.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, epoch=epoch, **rest)

    training.train_epoch = train_epoch
    run = Run("net", "ce", 0)
    held = runs.scratch(run, {}, root=folder / "unfinished") if group.first else contextlib.nullcontext()
    with held as scratch:
        weights, history = fit("ce", group, scratch, epochs=4)
        if group.first:
            (folder / "result").write_bytes(pickle.dumps((weights, history)))


def trained(folder: Path, processes_: int, killed_in: int | None = None):
    folder.mkdir(exist_ok=True)
    processes.start(_train, folder, killed_in, devices=processes_, device="cpu")
    return pickle.loads((folder / "result").read_bytes())


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_one_killed_ends_all_and_a_resumed_training_ends_the_same(tmp_path, capfd):
    weights, history = trained(tmp_path / "whole", 2)
    with pytest.raises(SeverityError, match=r"Process 2 of 2 was ended by SIGKILL, so the others were stopped"):
        trained(tmp_path / "cut", 2, killed_in=2)
    assert gone(tmp_path / "cut") == 2
    capfd.readouterr()
    with runs.scratch(Run("net", "ce", 0), {}, root=tmp_path / "cut/unfinished") as state:
        with pytest.raises(SeverityError, match="Another process is training the run net-ce-0"):
            trained(tmp_path / "cut", 2)
        kept = (state / "state.pt").read_bytes()
    state.mkdir()
    (state / "state.pt").write_bytes(kept)
    resumed, continued = trained(tmp_path / "cut", 2)
    assert capfd.readouterr().out.count("resuming after epoch 2") == 1
    assert continued.equals(history)
    assert all(torch.equal(value, weights[key]) for key, value in resumed.items())
    assert list((tmp_path / "cut/unfinished").iterdir()) == []


def test_the_processes_end_with_the_one_that_started_them(tmp_path):
    program = (
        "import sys; from pathlib import Path; from severity.networks import processes; from tests import test_distributed; "
        "processes.cores = lambda: 2; "
    )
    program += "processes.start(test_distributed._sleep, Path(sys.argv[1]), devices=2, device='cpu')"
    starter = subprocess.Popen([sys.executable, "-c", program, tmp_path], cwd=TOP)
    while len(list(tmp_path.iterdir())) < 2:
        assert starter.poll() is None
        time.sleep(0.05)
    starter.kill()
    starter.wait()
    for _ in range(200):
        if not any(alive(int(path.name)) for path in tmp_path.iterdir()):
            return
        time.sleep(0.05)
    pytest.fail("a process outlived the one that started it")


def _sleep(group: Group, folder: Path) -> None:
    (folder / str(os.getpid())).touch()
    time.sleep(60)


def alive(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_batch_too_small_to_be_shared_is_refused():
    plan = loading.epoch(Run("a", "b", 0), 0, 10, batch_size=5, accumulate=1)
    training._check_shares(plan, Group(0, 2))
    with pytest.raises(SeverityError, match="A batch of 5 images cannot be shared by 3 processes"):
        training._check_shares(plan, Group(0, 3))


def test_batch_norms_are_synchronised_on_gpus_alone(tmp_path):
    with pytest.raises(SeverityError, match="train.sync_batchnorm is true"):
        fit("ce", Group(0, 2), None, sync_batchnorm=True)
    _, history = fit("ce", Group(), tmp_path, sync_batchnorm=True, epochs=1)  # One process has nothing to synchronise.
    assert len(history) == 1
    net = resnet(3)
    names = list(net.state_dict())
    made = training._synchronised(net, torch.device("cuda"))
    kinds = {type(module).__name__ for module in made.modules()}
    assert any("Sync" in kind for kind in kinds) and not {kind for kind in kinds if kind.startswith("BatchNorm")}
    assert list(made.state_dict()) == names


# --- shares ---------------------------------------------------------------------------------------------------------


@given(strategies.integers(0, 200), strategies.integers(1, 9))
def test_shares_are_everything_in_order_and_nearly_equal(images, size):
    shares = [Group(rank, size).share(images) for rank in range(size)]
    assert [place for share in shares for place in range(images)[share]] == list(range(images))
    sizes = [share.stop - share.start for share in shares]
    assert max(sizes) - min(sizes) <= 1 and max(sizes) == -(-images // size)


@pytest.mark.parametrize("at_once", [1 << 19, 2 * 64, 1])
def test_an_image_is_augmented_alike_in_whichever_share_it_is(monkeypatch, at_once):
    monkeypatch.setattr(module_of_images, "AT_ONCE", at_once)  # all images at once, two, one
    images = torch.randint(256, (11, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    augment = Augmentation(**EVERY_STEP)

    def seeded():
        return torch.Generator().manual_seed(0)

    whole = augment(images, seeded())
    for size in (2, 3, 11):
        shares = [Group(rank, size).share(11) for rank in range(size)]
        parts = [augment(images[share], seeded(), 11, share) for share in shares]
        assert torch.allclose(torch.cat(parts), whole, atol=1e-6)


# --- who starts them ------------------------------------------------------------------------------------------------


def test_torchrun_and_srun_tell_who_is_who(monkeypatch):
    torchrun = dict(zip(processes.TORCHRUN, ("5", "8", "1", "host", "29500"), strict=True))
    assert processes.launched(torchrun) == (Group(5, 8, 1), "env://")
    monkeypatch.setenv("PATH", "")  # no scontrol
    step = {
        "SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_STEP_NODELIST": "gpu[07-08,12]",
        "SLURM_JOB_ID": "1234", "SLURM_STEP_ID": "0",
    }  # fmt: skip
    group, rendezvous = processes.launched(step)
    assert group == Group(3, 4, 1) and rendezvous.startswith("tcp://gpu07:")
    assert processes.launched(step | {"SLURM_STEP_ID": "1"})[1] != rendezvous
    told = processes.launched(step | {"MASTER_ADDR": "here", "MASTER_PORT": "1"})
    assert told == (group, "tcp://here:1")
    # One task of its own, or a batch script that has the job's number of tasks.
    assert processes.launched(step | {"SLURM_STEP_NUM_TASKS": "1"}) is None
    assert processes.launched({"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}) is None
    assert processes.launched({"RANK": "1"}) is None


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("a", "a"), ("a,b", "a"), ("a[1-4]", "a1"), ("gpu[09,11-12],b3", "gpu09"), ("n-1[003]", "n-1003")],
)
def test_the_first_host_is_found_without_slurms_help(monkeypatch, nodes, first):
    monkeypatch.setenv("PATH", "")
    assert processes._first_host(nodes) == first


class TestWanted:
    @pytest.fixture
    def two_gpus(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        monkeypatch.setattr(torch.cuda, "set_device", lambda number: None)

    def test_on_a_cpu(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        assert [processes.process_count(devices, "auto") for devices in (1, 3, "all")] == [1, 3, 1]
        with pytest.raises(SeverityError, match="machine.devices is 4, but this machine has 3 cores"):
            processes.process_count(4, "auto")

    def test_on_gpus(self, two_gpus):
        assert [processes.process_count(devices, "auto") for devices in (1, 2, "all")] == [1, 2, 2]
        assert processes.process_count(3, "cpu") == 3
        assert processes.process_count(1, "cuda:1") == 1
        assert inference.device("auto", Group(3, 4, 1)) == torch.device("cuda", 1)
        assert inference.device("cuda:1", Group()) == torch.device("cuda", 1)

    def test_slurm_may_show_each_process_one_gpu(self, two_gpus, monkeypatch):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        assert inference.device("auto", Group(3, 4, 3)) == torch.device("cuda", 0)

    @pytest.mark.parametrize(
        ("devices", "device", "told"),
        [
            (3, "auto", "machine.devices is 3, but 2 GPUs are visible"),
            (2, "cuda:1", "machine.device names one GPU, cuda:1"),
            ("all", "cuda:1", "machine.device names one GPU, cuda:1"),
        ],
    )
    def test_what_is_not_possible_is_refused(self, two_gpus, devices, device, told):
        with pytest.raises(SeverityError, match=told):
            processes.process_count(devices, device)

    @pytest.mark.parametrize(("device", "group"), [("auto", Group(2, 3, 2)), ("cuda:0", Group(0, 2, 0))])
    def test_more_processes_than_gpus_are_refused(self, two_gpus, device, group):
        with pytest.raises(SeverityError, match="need a GPU each"):
            inference.device(device, group)


def test_torchrun_starts_a_group(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    subprocess.run([*command, "-m", "tests.test_distributed", tmp_path], cwd=TOP, env=environment, check=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0 of 2, local 0: [0, 1]", "1 of 2, local 1: [0, 1]"]


def _meet(group: Group, folder: Path) -> None:
    met = group.gathered(torch.tensor([group.rank]), group.size).tolist()
    (folder / f"{group.rank} of {group.size}, local {group.local}: {met}").touch()


if __name__ == "__main__":
    # torchrun's number of processes counts, whatever the params say.
    processes.start(_meet, Path(sys.argv[1]), devices=7, device="cpu")
