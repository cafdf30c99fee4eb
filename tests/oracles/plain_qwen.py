"""Layers of Qwen's kind in plain torch and double precision, for shapes that transformers has no class for: any of
experts or dense MLPs behind attention with or without biases and norms of queries and keys. It reads a model
directory's config.json and safetensors, and shares nothing with what wrote them."""
import glob
import json
import os

import torch
import torch.nn.functional as F
from safetensors.torch import load_file


class PlainQwen:
    def __init__(self, folder):
        with open(os.path.join(folder, "config.json")) as file:
            self.config = json.load(file)
        self.weights = {}
        for path in sorted(glob.glob(os.path.join(folder, "*.safetensors"))):
            self.weights |= {name: value.double().requires_grad_() for name, value in load_file(path).items()}

    def norm(self, x, name):
        mean_square = x.pow(2).mean(-1, keepdim=True)
        return x * torch.rsqrt(mean_square + self.config["rms_norm_eps"]) * self.weights[name]

    def project(self, x, name):
        return F.linear(x, self.weights[name + ".weight"], self.weights.get(name + ".bias"))

    def rotate(self, x):
        """x [batch, heads, time, width]: the pairs (x[i], x[i + width / 2]) turn with the position."""
        half = x.shape[-1] // 2
        frequencies = self.config["rope_theta"]**(-torch.arange(half, dtype=torch.float64) / half)
        angles = torch.arange(x.shape[2], dtype=torch.float64)[:, None] * frequencies
        first, second = x[..., :half], x[..., half:]
        return torch.cat([first * angles.cos() - second * angles.sin(), second * angles.cos() + first * angles.sin()],
                         -1)

    def heads(self, x, name, norm=None):
        """[batch, time, hidden] -> [batch, heads, time, width], normed where the model does."""
        out = self.project(x, name).unflatten(-1, (-1, self.config["head_dim"])).transpose(1, 2)
        return self.norm(out, norm) if norm in self.weights else out

    def attention(self, x, prefix):
        q = self.rotate(self.heads(x, prefix + "q_proj", prefix + "q_norm.weight"))
        k = self.rotate(self.heads(x, prefix + "k_proj", prefix + "k_norm.weight"))
        v = self.heads(x, prefix + "v_proj")
        sharing = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(sharing, 1), v.repeat_interleave(sharing, 1)
        scores = q @ k.transpose(-1, -2) / q.shape[-1]**0.5
        future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        mixed = scores.masked_fill(future, -torch.inf).softmax(-1) @ v
        return self.project(mixed.transpose(1, 2).flatten(2), prefix + "o_proj")

    def mlp(self, x, prefix):
        return self.project(F.silu(self.project(x, prefix + "gate_proj")) * self.project(x, prefix + "up_proj"),
                            prefix + "down_proj")

    def experts(self, x, prefix):
        scores = self.project(x, prefix + "gate").softmax(-1)
        weights, chosen = scores.topk(self.config["num_experts_per_tok"], -1)
        if self.config["norm_topk_prob"]:
            weights = weights / weights.sum(-1, keepdim=True)
        out = torch.zeros_like(x)
        for expert in range(self.config["num_experts"]):
            share = (weights * (chosen == expert)).sum(-1, keepdim=True)  # 0 where it was not chosen
            out = out + share * self.mlp(x, f"{prefix}experts.{expert}.")
        if prefix + "shared_expert_gate.weight" in self.weights:
            out = out + self.project(x, prefix + "shared_expert_gate").sigmoid() * self.mlp(x, prefix + "shared_expert.")
        return out

    def logits(self, tokens):
        x = F.embedding(tokens, self.weights["model.embed_tokens.weight"])
        for layer in range(self.config["num_hidden_layers"]):
            prefix = f"model.layers.{layer}."
            x = x + self.attention(self.norm(x, prefix + "input_layernorm.weight"), prefix + "self_attn.")
            feed_forward = self.experts if prefix + "mlp.gate.weight" in self.weights else self.mlp
            x = x + feed_forward(self.norm(x, prefix + "post_attention_layernorm.weight"), prefix + "mlp.")
        head = self.weights.get("lm_head.weight", self.weights["model.embed_tokens.weight"])
        return F.linear(self.norm(x, "model.norm.weight"), head)

    def greedy(self, prompt, num_new):
        tokens = prompt
        with torch.no_grad():
            for _ in range(num_new):
                tokens = torch.cat([tokens, self.logits(tokens)[:, -1:].argmax(-1)], 1)
        return tokens


def expected(folder, seed):
    """What model_oracle.py's check_fixture compares: inputs, and what the model of `folder` computes for them."""
    model = PlainQwen(folder)
    generator = torch.Generator().manual_seed(seed)
    vocab = model.config["vocab_size"]
    tokens = torch.randint(vocab, (2, 16), generator=generator)
    labels = torch.randint(vocab, (2, 16), generator=generator)
    labels[0, :3] = labels[1, 7] = -100
    prompt = torch.randint(vocab, (2, 8), generator=generator)
    logits = model.logits(tokens)
    loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)
    loss.backward()
    found = {"logits": logits.detach(), "loss": loss.detach()}
    found |= {f"grad.{name}": value.grad for name, value in model.weights.items()}
    inputs = {"input_ids": tokens, "labels": labels, "generate.prompt": prompt}
    return inputs | {k: v.contiguous() for k, v in found.items()} | {"generate.tokens": model.greedy(prompt, 24)}
