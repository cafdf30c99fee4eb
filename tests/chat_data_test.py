"""moetron preprocess --from ...: what it writes of the records of DATA, and what it refuses.

chat_data_test.py MOETRON. Alpaca and ShareGPT records are written a second time here, in a few lines.
"""
import gzip
import json
import pathlib
import subprocess
import sys
import tempfile

PROGRAM = sys.argv[1]
ROOT = pathlib.Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data" / "instruct"


def preprocess(*arguments):
    done = subprocess.run([PROGRAM, "preprocess", *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode, done.stdout


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def alpaca(record):
    text = record["instruction"] + ("\n" + record["input"] if record["input"] else "")
    return {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": record["output"]}]}


def sharegpt(record):
    messages = []
    for turn in record["conversations"]:
        if turn["from"] == "function_call":
            messages.append({"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": json.loads(turn["value"])}]})
        else:
            role = {"human": "user", "gpt": "assistant", "observation": "tool"}[turn["from"]]
            messages.append({"role": role, "content": turn["value"]})
    result = {"messages": messages}
    if tools := json.loads(record["tools"]):
        result["tools"] = [{"type": "function", "function": tool} for tool in tools]
    return result


def main():
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for name, shape, again in [("llamafactory/alpaca_en_demo.json", "alpaca", alpaca),
                                   ("llamafactory/glaive_toolcall_zh_demo.json", "sharegpt", sharegpt)]:
            code, said = preprocess("--from", shape, "--input", DATA / name, "--output-prefix", folder / shape)
            assert code == 0, said
            records = json.loads((DATA / name).read_text())
            assert lines(folder / f"{shape}.jsonl") == [again(record) for record in records if record.get("output") != ""], name
            # What was written is read as it is, packed too.
            (folder / "again.jsonl.gz").write_bytes(gzip.compress((folder / f"{shape}.jsonl").read_bytes()))
            code, said = preprocess("--from", "messages", "--input", folder / "again.jsonl.gz", "--output-prefix", folder / "again")
            assert code == 0 and lines(folder / "again.jsonl") == lines(folder / f"{shape}.jsonl"), said

        for path in sorted(DATA.rglob("*.json*")):
            if ".moetron_cache" in path.parts or path.name in ("dataset_info.json", "mllm_demo.json") or path.stat().st_size > 2e6:
                continue
            code, said = preprocess("--from", "conversations", "--input", path, "--output-prefix", folder / "any")
            count = len(json.loads(path.read_text())) if path.suffix == ".json" else len(path.read_text().splitlines())
            refused = sum(int(line.split()[0]) for line in said.splitlines() if " refused, " in line)
            assert code == 0 and len(lines(folder / "any.jsonl")) + refused == count, said

        bad = folder / "bad.jsonl"
        bad.write_text('{"prompt": "a", "completion": "b"}\n\n{"prompt": "a", "completion": ""}\n')
        code, said = preprocess("--from", "conversations", "--input", bad, "--output-prefix", folder / "kept")
        assert code == 0 and f"1 refused, empty answer: {bad} line 3 (message 2)" in said, said
        code, said = preprocess("--from", "conversations", "--strict", "--input", bad, "--output-prefix", folder / "strict")
        assert code == 3 and f"{bad} line 3: empty answer: message 2" in said, said
        assert not (folder / "strict.jsonl").exists()
        code, said = preprocess("--from", "alpaca", "--input", bad, "--output-prefix", folder / "strict")
        assert code == 3 and "it has the shape prompt, not alpaca" in said, said

        out = folder / "alpaca_converted.json"
        done = subprocess.run([sys.executable, ROOT / "scripts" / "alpaca_to_openai.py", DATA / "llamafactory" / "identity.json", out],
                              env={"MOETRON": PROGRAM, "PATH": "/usr/bin:/bin"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert done.returncode == 0 and len(lines(out)) == 91, done.stdout
    print("chat_data_test: passed")


if __name__ == "__main__":
    main()
