"""What the tests share that start moetron as its users do: as one process, under torchrun, or as ranks that know
each other by their environment. The first argument of such a test is the program."""
import json
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import time

MOETRON = os.path.abspath(sys.argv[1])
PYTHON = sys.executable
TORCHRUN = [PYTHON, "-m", "torch.distributed.run", "--standalone", "--no-python", "--nproc_per_node", "4"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
MODEL = """--model-family deepseek --num-layers 3 --hidden-size 48 --ffn-hidden-size 96 --num-attention-heads 4
  --max-position-embeddings 256 --q-lora-rank 24 --kv-lora-rank 16 --qk-nope-head-dim 8 --qk-rope-head-dim 8
  --v-head-dim 8 --num-experts 8 --moe-router-topk 2 --moe-ffn-hidden-size 24 --first-k-dense-replace 1
  --enable-shared-expert --num-shared-experts 1 --moe-router-deepseekv3 --moe-router-score-function sigmoid
  --moe-router-enable-expert-bias --moe-router-topk-scaling-factor 2.5 --untie-embeddings-and-output-weights
  --tokenizer bytes""".split()
RUN = """--seq-length 32 --micro-batch-size 1 --global-batch-size 8 --train-iters 50 --lr 2e-3 --lr-warmup-iters 5
  --lr-decay-style cosine --min-lr 1e-4 --weight-decay 0.1 --eval-interval 25 --eval-iters 2 --split 95,5,0
  --log-interval 10 --fp32 --data-path data/pages_text_document""".split()
HANG = 600  # seconds after which something hangs, on a slow or busy machine, too
failures = []


def check(condition, what):
    print(("ok   " if condition else "FAIL ") + what, flush=True)
    if not condition:
        failures.append(what)


def run(arguments, code=0, launcher=(), **kwargs):
    done = subprocess.run([*launcher, MOETRON, *arguments], capture_output=True, text=True, env=ENVIRONMENT,
                          timeout=HANG, **kwargs)
    if done.returncode != code:
        print(done.stdout[-2000:], done.stderr[-2000:])
    check(done.returncode == code, f"exit {code}: {' '.join(arguments)[:100]}")
    return done


def saved_steps(text):
    """The steps that a run said it had saved."""
    return [int(step) for step in re.findall(r"^saved .*/step_0*(\d+)  stall ", text, re.M)]


def first_step(text):
    """The step behind which a run said it begins; None if it said none."""
    found = re.search(r"^steps +(\d+) to", text, re.M)
    return int(found[1]) if found else None


def records(folder):
    with open(os.path.join(folder, "metrics.jsonl")) as lines:
        return [json.loads(line) for line in lines]


def make_text():
    """Pages of words with a little grammar, in two alphabets."""
    rng = random.Random(1)
    words = ["router", "expert", "token", "layer", "loads", "sends", "a", "the", "wide", "small", "专家", "模型", "训练"]
    os.makedirs("text")
    with open("text/pages.jsonl", "w") as out:
        for _ in range(120):
            page = " ".join(rng.choice(words) for _ in range(60))
            out.write(json.dumps({"text": page}, ensure_ascii=False) + "\n")


def make_data():
    """data/pages_text_document, which RUN names."""
    run(["preprocess", "--input", "text", "--tokenizer", "bytes", "--output-prefix", "data/pages", "--append-eod"])


def wait_for_step(folder, step, process):
    """Returns when the metrics of `folder` hold `step` lines, `process` has ended, or after HANG seconds."""
    begin = time.monotonic()
    while time.monotonic() < begin + HANG:
        if process.poll() is not None:
            return
        if os.path.exists(f"{folder}/metrics.jsonl") and len(open(f"{folder}/metrics.jsonl").readlines()) >= step:
            return
        time.sleep(0.05)


def failure_blocks(text):
    """The blocks in which moetron reports the end of a run, each as a dictionary of its lines."""
    blocks = []
    for part in text.split("moetron: the run failed\n")[1:]:
        lines = [line.split(None, 1) for line in part.splitlines()[:4]]
        blocks.append({line[0]: line[1] for line in lines if len(line) == 2})
    return blocks


def children_of(parent):
    """The processes that a launcher started: rank -> id."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat") as file:
                if int(file.read().rsplit(")", 1)[1].split()[1]) != parent:
                    continue
            with open(f"/proc/{pid}/environ") as file:
                rank = re.search(r"(?:^|\0)RANK=(\d+)", file.read())
        except OSError:
            continue  # it has ended meanwhile
        if rank:
            found[int(rank[1])] = int(pid)
    return found


def code_within(process, seconds):
    """The exit code; None of a process that had to be killed after so many seconds."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        for pid in (process.pid, *children_of(process.pid).values()):
            os.kill(pid, signal.SIGKILL)
        process.wait()
        return None


def free_port():
    """Below those that the system gives to outgoing connections, of which one could take it before it is served."""
    while True:
        port = random.randint(20000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


class Ranks:
    """Four ranks without a launcher, so that each one's own exit code is seen. What they print goes into files.
    `more`, `variables` and `places` hold what single ranks have besides: arguments, environment variables, and a
    working directory."""

    def __init__(self, arguments, folder, size=4, more=None, variables=None, places=None):
        os.makedirs(folder)
        port = free_port()
        self.folder = folder
        self.processes = []
        for rank in range(size):
            environment = {**ENVIRONMENT, "RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank),
                           "LOCAL_WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
                           **(variables or {}).get(rank, {})}
            command = [MOETRON, *arguments, *(more or {}).get(rank, [])]
            with open(f"{folder}/{rank}.out", "w") as out, open(f"{folder}/{rank}.err", "w") as err:
                self.processes.append(subprocess.Popen(command, env=environment, stdout=out, stderr=err,
                                                       cwd=(places or {}).get(rank)))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()  # also ends one that is stopped
            process.wait()

    def codes(self, seconds, but=None):
        """The exit code of each rank but one; None of a rank that still runs after so many seconds."""
        deadline = time.monotonic() + seconds
        found = {}
        for rank, process in enumerate(self.processes):
            if rank == but:
                continue
            try:
                found[rank] = process.wait(max(0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                found[rank] = None
        return found

    def errors(self):
        return "".join(open(f"{self.folder}/{rank}.err").read() for rank in range(len(self.processes)))


def run_tests(*tests):
    """Runs them in order in a folder of their own that holds the text, and exits."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.makedirs("data")
        make_text()
        for test in tests:
            test()
    print(f"{len(failures)} checks failed")
    sys.exit(1 if failures else 0)
