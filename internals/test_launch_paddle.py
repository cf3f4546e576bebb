"""Paddle on two machines, started by its own launcher and by SLURM's variables."""

from launching import ADDRESSES, LaunchTests


class TestLaunchPaddle(LaunchTests):
    framework = "paddle"

    def test_a_mistake_ends_all_and_a_requeued_job_goes_on_and_equals_one_process(
        self,
        tmp_path,
        machines,
        monkeypatch,
    ):
        driver = self.driver(tmp_path, "1:13:mistake", "two")
        options = ["--nnodes=2", "--nproc_per_node=1", f"--master={ADDRESSES[0]}:29400"]
        launcher = ["-m", "paddle.distributed.launch", *options, f"--log_dir={tmp_path / 'log'}"]
        job = {"SLURM_JOB_ID": "77"}
        (code, first), (other_code, second) = self.launch(machines, [*launcher, *driver], [job, job])
        assert self.seconds_since_fault(tmp_path) < 30
        assert code, first
        assert other_code, second
        said = "ended the run: data.root holds a photo of a cat."
        assert said in first or said in second, first + second

        again = {**job, "SLURM_RESTART_COUNT": "1", "SLURM_STEP_ID": "0", "SLURM_STEP_NODELIST": ADDRESSES[0]}
        again |= {"SLURM_NTASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "1(x2)"}
        own = [{**again, "SLURM_PROCID": number, "SLURM_NODEID": number} for number in "01"]
        (code, first), (other_code, second) = self.launch(machines, driver, own)
        assert (code, other_code) == (0, 0), first + second
        (run,) = tmp_path.glob("two-*")
        self.check_equal_to_one_process(tmp_path, run, monkeypatch)
