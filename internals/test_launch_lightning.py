"""Lightning on two machines, started by torchrun on each."""

from launching import ADDRESSES, LaunchTests


class TestLaunchLightning(LaunchTests):
    framework = "lightning"

    def test_torchrun_goes_on_after_a_process_was_killed_and_equals_one_process(
        self,
        tmp_path,
        machines,
        monkeypatch,
    ):
        options = ["--nnodes=2", "--nproc-per-node=1", "--max-restarts=1", "--rdzv-backend=c10d", "--rdzv-id=one"]
        torchrun = ["-m", "torch.distributed.run", *options, f"--rdzv-endpoint={ADDRESSES[0]}:29400"]
        command = [*torchrun, *self.driver(tmp_path, "1:13:kill", "two")]
        addresses = [{"PET_LOCAL_ADDR": address} for address in ADDRESSES]  # both machines have this one's name
        (code, first), (other_code, second) = self.launch(machines, command, addresses)
        assert (code, other_code) == (0, 0), first + second
        assert "died without a word" in first + second, "the process that was left says what happened"
        (run,) = tmp_path.glob("two-*")
        self.check_equal_to_one_process(tmp_path, run, monkeypatch)
