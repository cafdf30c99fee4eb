#!/usr/bin/env python3
"""Megatron's files of ranks as a middle file. Their layout is found in them.

    convert_mg_to_middle_file.py --load-path DIR --save-path DIR [--model-files DIR]
"""
from moetron_convert import run

if __name__ == "__main__":
    run("--from", "megatron", "--to", "hf", "--dtype", "bf16")
