#!/usr/bin/env python3
"""What model_tool does, done by transformers: proves that the oracles accept a correct program.

    reference_tool.py MODEL_DIR INPUT.safetensors OUTPUT.safetensors
"""
import sys

import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file, save_file

from make_models import stored_gradients

transformers.utils.logging.disable_progress_bar()
transformers.utils.logging.set_verbosity_error()
folder, source, target = sys.argv[1:]
given = load_file(source)
model = transformers.AutoModelForCausalLM.from_pretrained(
    folder, attn_implementation="eager", experts_implementation="eager", dtype=torch.float32)
logits = model(input_ids=given["input_ids"], use_cache=False).logits
loss = F.cross_entropy(logits.flatten(0, 1), given["labels"].flatten(), ignore_index=-100)
loss.backward()
save_file({"logits": logits.detach().contiguous(), "loss": loss.detach()} | stored_gradients(model), target)
