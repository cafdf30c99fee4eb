#!/usr/bin/env python3
"""Alpaca records to OpenAI's messages, a line each: moetron preprocess --from alpaca.

    alpaca_to_openai.py IN OUT
"""
import os
import pathlib
import subprocess
import sys

if len(sys.argv) != 3:
    sys.exit(f"usage: {pathlib.Path(sys.argv[0]).name} IN OUT")
scripts = pathlib.Path(__file__).resolve().parent
found = subprocess.run(["bash", "-c", 'source "$1/find_moetron.sh" && find_moetron "$2"', "alpaca_to_openai.py",
                        str(scripts), str(scripts.parent)], stdout=subprocess.PIPE, text=True)
if found.returncode != 0:
    sys.exit(found.returncode)
program = found.stdout.strip()
os.execv(program, [program, "preprocess", "--from", "alpaca", "--input", sys.argv[1], "--output-prefix", sys.argv[2]])
