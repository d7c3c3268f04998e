#!/usr/bin/env python3
"""Write a checkpoint as GGUF (llama architecture, gpt2-style BPE, ChatML-like template): export.py CHECKPOINT.pt TOKENIZER.json OUT.gguf

The weights use interleaved rotary pairs, as GGUF's llama architecture does, so nothing is permuted.
"""
import argparse
import json

import gguf
import numpy as np
import torch

# A short system turn carries remembered facts, as in the dialogues' S: lines; a long one (somebody's persona prompt) is left out:
# this model is the persona.
TEMPLATE = (
    "{% for m in messages %}{% if m['role'] != 'system' or (m['content'] | length) < 240 %}<|im_start|>{{ m['role'] }}\n"
    "{{ m['content'] | trim }}<|im_end|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CARD = (
    "A small language model trained from scratch by the MommyGPT project as a caring parent in short English conversations. "
    "Data: public-domain books; children's stories of Pratham Books and African Storybook (CC-BY 4.0); Synthetic-Persona-Chat by "
    "Google Research (CC-BY 4.0); dialogues written for the project. Not fit for advice on health, law or money, nor for emergencies."
)
CONTROL, NORMAL = 3, 1  # GGUF's token types
TYPES = {"q8_0": gguf.GGMLQuantizationType.Q8_0, "f16": gguf.GGMLQuantizationType.F16, "f32": gguf.GGMLQuantizationType.F32}
# What tools call the file by; without it they guess.
FILE_TYPES = {"q8_0": gguf.LlamaFileType.MOSTLY_Q8_0, "f16": gguf.LlamaFileType.MOSTLY_F16, "f32": gguf.LlamaFileType.ALL_F32}


def describe(w, c, name):
    w.add_name(name)
    w.add_description(CARD)
    w.add_license("apache-2.0")
    w.add_languages(["en"])
    w.add_block_count(c["layers"])
    w.add_context_length(c["ctx"])
    w.add_embedding_length(c["dim"])
    w.add_feed_forward_length(c["ffn"])
    w.add_head_count(c["heads"])
    w.add_head_count_kv(c["kv"])
    w.add_key_length(c["hd"])
    w.add_value_length(c["hd"])
    w.add_rope_dimension_count(c["hd"])
    w.add_rope_freq_base(c["base"])
    w.add_layer_norm_rms_eps(c["eps"])
    w.add_vocab_size(c["vocab"])


def add_tokenizer(w, path):
    with open(path, encoding="utf-8") as f:
        tok = json.load(f)
    added = {t["content"]: t["id"] for t in tok["added_tokens"]}
    by_id = {i: t for t, i in tok["model"]["vocab"].items()} | {i: t for t, i in added.items()}
    tokens = [by_id[i] for i in range(len(by_id))]
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("gpt-2")
    w.add_token_list(tokens)
    w.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in tok["model"]["merges"]])
    w.add_token_types([CONTROL if t in added else NORMAL for t in tokens])
    w.add_bos_token_id(added["<|endoftext|>"])
    w.add_eos_token_id(added["<|im_end|>"])
    w.add_pad_token_id(added["<|endoftext|>"])
    w.add_add_bos_token(False)
    w.add_chat_template(TEMPLATE)
    return len(tokens)


def tensors(sd, c):
    """Names as GGUF's llama architecture has them, with the weights."""
    yield "token_embd", sd["emb.weight"]
    yield "output_norm", sd["norm.weight"]
    for i in range(c["layers"]):
        get = lambda name: sd[f"blocks.{i}.{name}.weight"]
        q, k, v = get("qkv").split([c["heads"] * c["hd"], c["kv"] * c["hd"], c["kv"] * c["hd"]])
        gate, up = get("gu").chunk(2)
        parts = {"attn_norm": get("attn_norm"), "attn_q": q, "attn_k": k, "attn_v": v, "attn_output": get("o"),
                 "ffn_norm": get("ffn_norm"), "ffn_gate": gate, "ffn_up": up, "ffn_down": get("down")}
        yield from ((f"blk.{i}.{name}", t) for name, t in parts.items())


def add_tensor(w, name, tensor, kind):
    x = tensor.float().numpy()
    if x.ndim == 1 or kind == "f32":
        w.add_tensor(f"{name}.weight", x.astype(np.float32))
    elif kind == "f16":
        w.add_tensor(f"{name}.weight", x.astype(np.float16))
    else:
        w.add_tensor(f"{name}.weight", gguf.quants.quantize(x, TYPES[kind]), raw_dtype=TYPES[kind])


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("checkpoint")
    ap.add_argument("tokenizer")
    ap.add_argument("out")
    ap.add_argument("--type", default="q8_0", choices=TYPES)
    ap.add_argument("--name", default="mommy")
    a = ap.parse_args()
    saved = torch.load(a.checkpoint, map_location="cpu")
    sd, c = saved["model"], saved["config"]
    w = gguf.GGUFWriter(a.out, "llama")
    describe(w, c, a.name)
    w.add_file_type(FILE_TYPES[a.type])
    assert add_tokenizer(w, a.tokenizer) == c["vocab"]
    for name, tensor in tensors(sd, c):
        add_tensor(w, name, tensor, a.type)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


if __name__ == "__main__":
    main()
