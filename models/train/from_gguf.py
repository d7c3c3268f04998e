#!/usr/bin/env python3
"""A checkpoint and a tokenizer out of an exported model, to train it on: from_gguf.py MODEL.gguf OUT_DIR

Q8_0 weights come back within half a step of their blocks; training smooths that over in its first steps.
"""
import sys

import gguf
import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from model import Config, Llama

CONTROL = 3  # GGUF's token type


def config(fields):
    get = lambda name: fields[f"llama.{name}"].contents()
    return Config(
        vocab=get("vocab_size"), dim=get("embedding_length"), layers=get("block_count"), heads=get("attention.head_count"),
        kv=get("attention.head_count_kv"), hd=get("attention.key_length"), ffn=get("feed_forward_length"), ctx=get("context_length"),
        base=get("rope.freq_base"), eps=get("attention.layer_norm_rms_epsilon"),
    )


def weights(tensors, c):
    t = {x.name: torch.from_numpy(gguf.dequantize(x.data, x.tensor_type).astype(np.float32).copy()) for x in tensors}
    out = {"emb.weight": t["token_embd.weight"], "norm.weight": t["output_norm.weight"]}
    for i in range(c.layers):
        get = lambda name: t[f"blk.{i}.{name}.weight"]
        out |= {
            f"blocks.{i}.attn_norm.weight": get("attn_norm"),
            f"blocks.{i}.ffn_norm.weight": get("ffn_norm"),
            f"blocks.{i}.qkv.weight": torch.cat([get("attn_q"), get("attn_k"), get("attn_v")]),
            f"blocks.{i}.o.weight": get("attn_output"),
            f"blocks.{i}.gu.weight": torch.cat([get("ffn_gate"), get("ffn_up")]),
            f"blocks.{i}.down.weight": get("ffn_down"),
        }
    return out


def tokenizer(fields):
    tokens, kinds, merges = (fields[f"tokenizer.ggml.{n}"].contents() for n in ("tokens", "token_type", "merges"))
    tok = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, [tuple(m.split(" ")) for m in merges]))
    tok.pre_tokenizer, tok.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tok.add_special_tokens([AddedToken(t, special=True) for t, k in zip(tokens, kinds) if k == CONTROL])
    return tok


def main():
    source, out = sys.argv[1:3]
    reader = gguf.GGUFReader(source)
    c = config(reader.fields)
    model = Llama(c)
    model.load_state_dict(weights(reader.tensors, c))
    tokenizer(reader.fields).save(f"{out}/tokenizer.json")
    torch.save({"model": model.state_dict(), "config": c.dict()}, f"{out}/pre.pt")
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters")


if __name__ == "__main__":
    main()
