"""Oracle of optim_oracle_test.cpp: torch.optim.AdamW on numbers from a file.

Usage: optim_oracle.py IN OUT COUNT STEPS LR BETA1 BETA2 EPS WEIGHT_DECAY
IN holds COUNT values and STEPS gradients of COUNT numbers (fp32); OUT gets the values and the two
moments after all steps.
"""

import sys

import numpy
import torch

source, target = sys.argv[1:3]
count, steps = map(int, sys.argv[3:5])
lr, beta1, beta2, eps, weight_decay = map(float, sys.argv[5:10])
numbers = torch.from_numpy(numpy.fromfile(source, dtype=numpy.float32).reshape(1 + steps, count))
value = torch.nn.Parameter(numbers[0].clone())
adamw = torch.optim.AdamW([value], lr, (beta1, beta2), eps, weight_decay, foreach=False)
for grad in numbers[1:]:
    value.grad = grad.clone()
    adamw.step()
state = adamw.state[value]
result = torch.stack([value.detach(), state["exp_avg"], state["exp_avg_sq"]])
result.numpy().tofile(target)
