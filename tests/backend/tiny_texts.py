"""Small random-weight text encoders of real classes, and tokenizers made here: what pipelines read prompts with."""

from __future__ import annotations

from typing import Any

import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast
from transformers.processing_utils import ProcessorMixin

HIDDEN = 16
_TEXT: dict[str, Any] = {
    "hidden_size": HIDDEN,
    "intermediate_size": HIDDEN,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 64,
}
_IMAGE_TOKENS = ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>", "<|video_pad|>")
_SAID = (
    "{% for message in messages %}{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}{{ part['text'] }}{% endfor %}{% endif %}{% endfor %}"
)


def letters(length: int = 512, special: tuple[str, ...] = (), **named: str) -> PreTrainedTokenizerFast:
    """One token a letter, and one for each special text; a chat is what is said in it.

    Args:
        length: tokens that its model reads.
        special: texts with a token of their own, which get the numbers from 31 on.
        named: such texts that the tokenizer has as attributes.
    """
    known = ["<s>", "<pad>", "</s>", "<unk>", *"abcdefghijklmnopqrstuvwxyz ", *special, *named.values()]
    tokens = Tokenizer(models.WordLevel({token: number for number, token in enumerate(known)}, unk_token="<unk>"))
    tokens.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokens.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokens,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_max_length=length,
        extra_special_tokens={**named, **{f"special_{number}": text for number, text in enumerate(special)}},
    )
    tokenizer.chat_template = _SAID
    return tokenizer


def qwen3(cls: type = transformers.Qwen3Model, layers: int = 2) -> Any:
    return cls(transformers.Qwen3Config(head_dim=8, num_hidden_layers=layers, **_TEXT)).eval()


def glm() -> Any:
    return transformers.GlmModel(
        transformers.GlmConfig(head_dim=8, num_hidden_layers=2, pad_token_id=1, **_TEXT)
    ).eval()


def mistral3(layers: int = 3) -> Any:
    """Pictures and text; pipelines take what its layers in between give."""
    config = transformers.Mistral3Config(
        text_config=transformers.MistralConfig(head_dim=8, num_hidden_layers=layers, **_TEXT),
        vision_config=transformers.PixtralVisionConfig(
            hidden_size=HIDDEN, intermediate_size=HIDDEN, num_hidden_layers=1, num_attention_heads=2, image_size=28
        ),
    )
    return transformers.Mistral3ForConditionalGeneration(config).eval()


def _rope() -> dict[str, Any]:
    return {"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default", "rope_theta": 10000.0}


def _qwen_text() -> dict[str, Any]:
    return {**_TEXT, "num_hidden_layers": 2, "rope_parameters": _rope()}


def _seeing(tokenizer: Any) -> dict[str, int]:
    names = {"vision_start_token_id": 0, "image_token_id": 1, "vision_end_token_id": 2, "video_token_id": 3}
    return {name: tokenizer.convert_tokens_to_ids(_IMAGE_TOKENS[at]) for name, at in names.items()}


def qwen_letters(length: int = 1024) -> PreTrainedTokenizerFast:
    """Letters, and the tokens that stand for pictures."""
    return letters(length, _IMAGE_TOKENS)


def qwen25_text() -> Any:
    return transformers.Qwen2_5_VLTextModel(transformers.Qwen2_5_VLTextConfig(**_qwen_text())).eval()


def qwen25(tokenizer: Any = None) -> Any:
    """Qwen 2.5 VL: two by two patches of 14 pixels a token."""
    vision = {
        "depth": 1,
        "hidden_size": HIDDEN,
        "intermediate_size": HIDDEN,
        "num_heads": 2,
        "out_hidden_size": HIDDEN,
        "fullatt_block_indexes": [0],
    }
    config = transformers.Qwen2_5_VLConfig(
        text_config=_qwen_text(), vision_config=vision, **_seeing(tokenizer or qwen_letters())
    )
    return transformers.Qwen2_5_VLForConditionalGeneration(config).eval()


def qwen2(tokenizer: Any = None) -> Any:
    """Qwen 2 VL."""
    vision = {"depth": 1, "embed_dim": HIDDEN, "hidden_size": HIDDEN, "num_heads": 2, "mlp_ratio": 2}
    config = transformers.Qwen2VLConfig(
        text_config=_qwen_text(), vision_config=vision, **_seeing(tokenizer or qwen_letters())
    )
    return transformers.Qwen2VLForConditionalGeneration(config).eval()


def qwen3_vl() -> Any:
    """Qwen 3 VL."""
    vision = {
        "depth": 1,
        "hidden_size": HIDDEN,
        "intermediate_size": HIDDEN,
        "num_heads": 2,
        "out_hidden_size": HIDDEN,
        "num_position_embeddings": 16,
        "deepstack_visual_indexes": [0],
    }
    text = {**_TEXT, "head_dim": 8, "num_hidden_layers": 3, "rope_parameters": _rope()}
    return transformers.Qwen3VLModel(transformers.Qwen3VLConfig(text_config=text, vision_config=vision)).eval()


class PictureReader(ProcessorMixin):
    """What Qwen2VLProcessor does with text and pictures. The class itself wants torchvision, for videos."""

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None) -> None:
        super().__init__(image_processor, tokenizer, chat_template=chat_template)
        self.image_token = "<|image_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)

    def replace_image_token(self, image_inputs: dict[str, Any], image_idx: int, **_: Any) -> str:
        merged = self.image_processor.merge_size**2
        return self.image_token * (int(image_inputs["image_grid_thw"][image_idx].prod()) // merged)


def qwen_processor(tokenizer: Any) -> PictureReader:
    """Pictures are made small before they are read."""
    pictures = transformers.Qwen2VLImageProcessorPil(min_pixels=28 * 28, max_pixels=4 * 28 * 28)
    return PictureReader(pictures, tokenizer)


def glm_image() -> tuple[Any, Any]:
    """The model that writes a picture's tokens, and what reads its prompts. Before them it writes a sketch of 256
    tokens, here of four."""
    special = {"image_token": "<|image|>", "grid_bos_token": "<|grid|>", "grid_eos_token": "<|/grid|>"}
    tokenizer = letters(512, tuple("0123456789"), **special)
    config = transformers.GlmImageConfig(
        text_config={
            **_TEXT,
            "num_hidden_layers": 1,
            "vision_vocab_size": 24,
            "pad_token_id": 1,
            "eos_token_id": None,
            "rope_parameters": _rope(),
        },
        vision_config={
            "depth": 1,
            "hidden_size": HIDDEN,
            "intermediate_size": HIDDEN,
            "num_heads": 2,
            "image_size": 32,
            "patch_size": 16,
        },
        vq_config={"embed_dim": HIDDEN, "num_embeddings": 16, "latent_channels": HIDDEN},
        image_token_id=tokenizer.convert_tokens_to_ids("<|image|>"),
        image_start_token_id=16,
        image_end_token_id=17,
    )
    model = transformers.GlmImageForConditionalGeneration(config).eval()
    processor: Any = transformers.GlmImageProcessor
    processor._get_target_shape = lambda self, height, width: (height // 32, width // 32, 2, 2)
    return model, processor(transformers.GlmImageImageProcessorPil(), tokenizer, chat_template=_SAID)
