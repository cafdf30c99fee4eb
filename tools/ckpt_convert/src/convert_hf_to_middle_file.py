#!/usr/bin/env python3
"""A Hugging Face model as a middle file, which is a Hugging Face directory in bf16: 8 bits become bf16.

    convert_hf_to_middle_file.py --load-path DIR --save-path DIR [options of moetron convert]
"""
from moetron_convert import run

if __name__ == "__main__":
    run("--from", "hf", "--to", "hf", "--dtype", "bf16")
