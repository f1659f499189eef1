"""Kinds of CLIP, told by their configuration, and a small copy of each in a local folder."""

import copy
import json
from collections import defaultdict
from functools import lru_cache
from typing import NamedTuple

import open_clip
import timm

WORDS = [
    "x", "a", "photo", "of", "the", "normal", "damaged", "brain", "liver", "tissue", "scene", "in",
    "lesion", "with", "without", ".",
]  # fmt: skip


class Family(NamedTuple):
    """What decides how a model's towers run."""

    image: str
    text: str
    tokens: str

    @property
    def runs(self):
        """Whether its image tower is a plain sequence of transformer blocks."""
        return self.image.partition(",")[0] in STAND_INS or self.image.startswith("open_clip's ViT")


STAND_INS = {
    "timm's ViT": "test_vit",
    "timm's EVA": "vit_pe_core_tiny_patch16_384",
    "timm's ViTamin": "vitamin_small_224",
    "timm's ViT with convolutions first": "vit_base_mci_224",
    "timm's ViT with relative positions": "test_vit_relpos",
}
"""By kind of timm's towers, a small one."""

_MODULES = {
    "vision_transformer": "timm's ViT",
    "eva": "timm's EVA",
    "vitamin": "timm's ViTamin",
    "vision_transformer_hybrid": "timm's ViT with convolutions first",
    "vision_transformer_relpos": "timm's ViT with relative positions",
    "convnext": "ConvNeXt",
    "swin_transformer": "Swin",
    "fastvit": "FastViT",
}

HF_TOWERS = {
    "xlm-roberta": "xlm-roberta",
    "roberta": "roberta-base",
    "mt5": "mt5",
    "m2m_100": "nllb",
    "bert": "BiomedBERT",
}
"""By kind of Hugging Face's text towers, a part of their names."""

_POOLS = {"token": "class token", "map": "pooled by attention", "avg": "mean of patches"}

MORE = {
    "hf-hub:microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224": {
        "embed_dim": 512,
        "vision_cfg": {
            "timm_model_name": "vit_base_patch16_224",
            "timm_pool": "",
            "timm_proj": "linear",
        },
        "text_cfg": {
            "hf_model_name": "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract",
            "hf_tokenizer_name": "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract",
            "hf_proj_type": "mlp",
            "hf_pooler_type": "cls_last_hidden_state_pooler",
            "context_length": 256,
        },
    },
    "timm:vit_small_patch14_dinov2": {
        "embed_dim": 384,
        "vision_cfg": {
            "timm_model_name": "vit_small_patch14_dinov2",
            "timm_pool": "token",
            "timm_proj": "none",
        },
    },
    "timm:vit_small_patch16_dinov3": {
        "embed_dim": 384,
        "vision_cfg": {
            "timm_model_name": "vit_small_patch16_dinov3",
            "timm_pool": "avg",
            "timm_proj": "none",
        },
    },
}
"""Models that open_clip's list has not, as their makers' configurations say."""


SINCE = {
    "PE-Core-B-16": {
        "embed_dim": 1024,
        "vision_cfg": {
            "timm_model_name": "vit_pe_core_base_patch16_224",
            "timm_pool": "map",
            "timm_proj": None,
        },
        "text_cfg": {},
        "custom_text": True,
    },
}
"""Models that are not in the list of every version of open_clip."""


def configs():
    """Every model of open_clip's list, and some more, by name."""
    listed = {name: open_clip.get_model_config(name) for name in open_clip.list_models()}
    return {**copy.deepcopy(SINCE), **listed, **copy.deepcopy(MORE)}


def family_of(config):
    """The family of a configuration, told by its words alone."""
    text = config.get("text_cfg")
    if text is None:
        return Family(_image(config["vision_cfg"]), "none", "none")
    tokens = text.get("hf_tokenizer_name") and "Hugging Face's"
    return Family(_image(config["vision_cfg"]), _text(text), tokens or "CLIP's")


@lru_cache
def families():
    """The names of models of each family: those that run first, and the largest."""
    found = defaultdict(list)
    for name, config in configs().items():
        found[family_of(config)].append(name)
    order = sorted(found.items(), key=lambda one: (not one[0].runs, -len(one[1])))
    return dict(order)


def _image(vision):
    if "timm_model_name" in vision:
        name = vision["timm_model_name"]
        kind = _MODULES[timm.models.model_entrypoint(name).__module__.rpartition(".")[2]]
        pool = vision.get("timm_pool", "avg") or (
            "avg" if "gap" in name or "vitamin" in name else "token"
        )
        return f"{kind}, {_POOLS[pool]}" if kind in STAND_INS else kind
    if not isinstance(vision["layers"], int):
        return "ResNet"
    pool = {"tok": "token"}.get(vision.get("pool_type", "tok"), vision.get("pool_type"))
    return f"open_clip's ViT, {_POOLS['map' if vision.get('attentional_pool') else pool]}"


def _hf_kind(text):
    return next(kind for kind, part in HF_TOWERS.items() if part in text["hf_model_name"])


def _text(text):
    if "hf_model_name" in text:
        kind = _hf_kind(text)
        return f"Hugging Face's {kind}"
    if text.get("embed_cls"):
        return "CoCa's, class token"
    return "CLIP's, every token sees all" if text.get("no_causal_mask") else "CLIP's"


def small(config, folder):
    """Write a small copy of a model to a folder, and return it as a backbone's name."""
    config = copy.deepcopy(config)
    kind = family_of(config)
    config["embed_dim"] = 24
    config["vision_cfg"] = _small_vision(config["vision_cfg"], kind)
    if "text_cfg" in config:
        config["text_cfg"] = _small_text(config["text_cfg"], folder)
    if "multimodal_cfg" in config:
        text = {"context_length": 76, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1}
        config["multimodal_cfg"] = text | {"attn_pooler_heads": 2}
    if config["vision_cfg"].get("timm_proj") == "none":
        made = timm.create_model(config["vision_cfg"]["timm_model_name"])
        config["embed_dim"] = made.num_features
    content = {"model_cfg": config, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    return f"local-dir:{folder}"


def stand_in(vision, kind):
    """The small tower of timm's for a tower of timm's; ``None`` for open_clip's own."""
    if "dinov3" in vision.get("timm_model_name", ""):
        return vision["timm_model_name"]  # no other has registers and such rotary positions
    return STAND_INS.get(kind.image.partition(",")[0])


def _small_vision(vision, kind):
    if name := stand_in(vision, kind):
        kept = {key: vision[key] for key in ("timm_pool", "timm_proj") if key in vision}
        return {"timm_model_name": name, **kept}
    size = {"image_size": 64, "layers": 4, "width": 32, "head_width": 16, "patch_size": 16}
    queries = {"attn_pooler_queries": 5, "attn_pooler_heads": 2}
    return vision | size | (queries if vision.get("attentional_pool") else {})


def _small_text(text, folder):
    end = None
    text = dict(text)
    if "hf_model_name" in text:
        kind = _hf_kind(text)
        write_text_config(kind, folder)
    else:
        text |= {"width": 16, "heads": 2, "layers": 2}
    if "hf_tokenizer_name" in text:
        bert = (
            "bert" in text["hf_tokenizer_name"].lower()
            and "roberta" not in text["hf_tokenizer_name"]
        )
        end = write_tokenizer(folder, bert=bert)
        text |= {"vocab_size": 64, "context_length": 24}
    if text.get("pool_type") == "eos":
        text["eos_id"] = end
    return text


def write_text_config(kind, folder):
    """Write the configuration of a small text tower of Hugging Face."""
    import transformers

    if kind in ("mt5", "m2m_100"):
        shared = {"d_model": 16, "vocab_size": 64, "pad_token_id": 0, "eos_token_id": 1}
        own = {"d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2}
        if kind == "m2m_100":
            own = {"encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 24}
            own |= {"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 24}
        made = {"mt5": "MT5Config", "m2m_100": "M2M100Config"}[kind]
    else:
        shared = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
        shared |= {"intermediate_size": 24, "vocab_size": 64, "pad_token_id": 0}
        own = {"max_position_embeddings": 64}
        made = {"bert": "BertConfig", "roberta": "RobertaConfig"}.get(kind, "XLMRobertaConfig")
    getattr(transformers, made)(**shared, **own).save_pretrained(folder)


def write_tokenizer(folder, bert=False):
    """Write a tokenizer that knows a few words, and return the number of the token of an end."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    pad, start, end, unknown = ("[PAD]", "[CLS]", "[SEP]", "[UNK]") if bert else (
        "<pad>", "<s>", "</s>", "<unk>"
    )  # fmt: skip
    vocabulary = {word: n for n, word in enumerate([pad, end, start, unknown, *WORDS])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token=unknown))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=[(one, vocabulary[one]) for one in (start, end)]
    )
    ends = (
        {"sep_token": end, "cls_token": start} if bert else {"eos_token": end, "bos_token": start}
    )
    PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token=unknown, pad_token=pad, **ends
    ).save_pretrained(folder)
    return vocabulary[end]
