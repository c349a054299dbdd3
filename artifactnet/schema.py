"""Every key a run can have, its type and its default; a YAML file holds differences from them.

What values a key may have is in `artifactnet.rules`, reading files in `artifactnet.config`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class LoraConfig:
    """Low-rank adapters on the backbone (paper D.4). ``rank: 0`` trains all weights."""

    rank: int = 0
    alpha: int = 16
    dropout: float = 0.0
    target_modules: list[str] = field(default_factory=lambda: ["qkv", "proj", "fc1", "fc2"])


@dataclass
class AttentionConfig:
    """How the class token's attention becomes a map (Abnar & Zuidema 2020; Gildenblat 2020)."""

    method: str = "rollout"  # rollout | gradient_rollout | grad_cam (of the last stage)
    head_fusion: str = "mean"  # mean | max | min
    discard_ratio: float = 0.0  # share of the weakest weights dropped per layer and image
    start_layer: int = 0  # first block that takes part; -4: the last four
    second_order: bool = True  # gradient_rollout: differentiate through the gradient too
    form: str = "auto"  # auto: no N x N storage where possible | triton: the same, on CUDA | stored
    normalization: str = "saturate"  # saturate | max | minmax | none


@dataclass
class SegmentationConfig:
    """The heads that say where artifacts are, to the pixel (X-AIGD Sec. 5, B.2)."""

    head: str = "none"  # none | upernet (with an FCN head beside it in training)
    channels: int = 512  # hidden width of the main head
    auxiliary_channels: int = 512
    labels: str = "softmax"  # softmax: background + 7 categories | sigmoid: 7 that may overlap
    dropout: float = 0.1
    evidence: bool = False  # add the strongest artifact evidence to the fake logit
    categories: list[str] | None = None  # those that training masks named; training sets it


@dataclass
class HeatmapConfig:
    """A head that predicts a heatmap, its uncertainty and a score (HEIE Sec. 3; students)."""

    head: str = "none"  # none | decoder (light: students) | mapper (HEIE, with learned tokens)
    width: int = 64  # hidden channels
    stride: int = 8  # decoder: pixels per cell of its heatmap
    tile: int = 112  # mapper: side of a tile and of the thumbnail, pixels
    max_tiles: int = 6  # mapper: most tiles of an image
    adaptive: bool = True  # mapper: predict cuts each image by its own size and shape
    fusion: str = "uncertainty"  # mapper: uncertainty | learnable | fixed | global | local
    blocks: int = 2  # mapper: two-way blocks
    heads: int = 4  # mapper: attention heads
    tokens: int = 4  # mapper: learned vectors per map
    calibration: str = "sum"  # mapper: how the two scores become one: sum | dynamic


@dataclass
class ContextConfig:
    """A second stream for the verdict: a ViT that sees the whole image at low resolution."""

    backbone: str = ""  # timm's name of a plain ViT; "": no such stream
    pretrained: str = "auto"  # as model.pretrained
    image_size: int = 168  # side of the square to which the whole image is resized, pixels
    blocks: list[int] = field(default_factory=lambda: [5, 7])  # whose output is pooled, from 0


@dataclass
class GrpoConfig:
    """FakeXplainer's second stage: group relative policy optimization (Sec. 4.2), by TRL."""

    generations: int = 4  # answers a group: of one image, compared with each other
    temperature: float = 0.9  # of sampling
    beta: float = 0.04  # weight of the KL divergence from the model of the first stage
    epsilon: float = 0.2  # clipping of the probability ratio
    eta: float = 1.1  # scales the IoU reward, which is capped at 1
    grounding: str = "linear"  # weight of the IoU reward: linear (0.5 to 1), or a number
    iou: str = "union"  # of two sets of boxes: union (areas) | matched (box by box)
    vllm: str = "none"  # sampling by vLLM: none | colocate (in the same processes) | server
    vllm_url: str = "http://127.0.0.1:8000"  # of `trl vllm-serve`
    vllm_memory: float = 0.3  # colocate: share of each GPU's memory for vLLM


@dataclass
class MllmConfig:
    """A model built on a multimodal language model; of other models all of it is unused."""

    # heie | fakexplainer | qreal_object | qreal_image | xaigd_pad, or of a chain that answers as
    # qreal_image does: qreal_detect | qreal_filter | qreal_describe
    task: str = "heie"
    # checkpoint for transformers, by name or folder: of InternVL (OpenGVLab/InternVL3-8B-hf) for
    # heie, of any family of `vlm.coordinates` for fakexplainer
    base: str | None = None
    revision: str | None = None  # branch, tag or commit of a checkpoint given by name
    quantize: str = "none"  # none | 8bit | 4bit; needs bitsandbytes
    lora_rank: int = 16  # 0: full fine-tuning
    lora_alpha: float = 32.0
    lora_dropout: float = 0.05
    # what learns: all (by adapters on all linear layers, unless lora_rank is 0) | language (by
    # adapters) | language_projector (and the projector, whole) | projector (alone, whole)
    tune: str = "all"
    gradient_checkpointing: bool = True
    # what is learned: the chain of thought as written | template | none (Table 7), or before it, as
    # a first stage, answers as short as "texture, top left" | short
    text: str = "written"
    # share of training images whose description is learned; of the others, what follows it. Few
    # pictures teach no captions, they are learned by heart
    descriptions: float = 1.0
    # what the mapper reads of the vision tower: its last features (HEIE) | levels (also those of
    # three blocks before)
    features: str = "last"
    # asked of images that come without a question of their own
    question: str = "Identify and describe every problematic region in this AIGC image."
    max_new_tokens: int = 512
    # of heie, added to logits in greedy decoding: of a text's last token where those before it
    # have just been written (`sequence_bias` of transformers)
    sequence_bias: dict[str, float] = field(default_factory=dict)
    # the following are of fakexplainer
    stage: str = "sft"  # sft | grpo
    adapters: str | None = None  # folder of the run whose adapters are trained further
    cold_start: bool = True  # grpo starts from the adapters of an sft run; false: it may do without
    # where the task is described: user | system (turn of the chat) | brief (nowhere: learned)
    layout: str = "user"
    temperature: float = 0.0  # 0: greedy decoding; above, answers are sampled, one for each image
    region_form: str = "json"  # json | native (the family's own box tokens)
    drop: str = "none"  # left out of the answers (Table 4): none | bbox | caption | tags | label
    # the following two are of qreal
    context: str = "crop"  # shown for a question about an entity: crop | image
    negatives: bool = True  # images without a problem are learned, too, as "none"
    groups: str | None = (
        None  # of fakexplainer: JSON file, {generator: group}: more rows of an evaluation
    )
    save_every: int = 100  # optimizer steps between two states from which a run resumes
    grpo: GrpoConfig = field(default_factory=GrpoConfig)


@dataclass
class ModelConfig:
    """The network and its preprocessing; saved inside every checkpoint."""

    backbone: str = "vit_small_patch14_dinov2"
    backbone_kwargs: dict[str, Any] = field(default_factory=dict)  # passed to timm.create_model
    stem: str = "patch"  # patch: timm's own embedding | conv: convolutional stem, same grid
    stem_width: int = 32  # conv stem: channels after the first convolution
    pretrained: str = "auto"  # auto | true | false
    weights: str | None = None  # local backbone weights (.safetensors or a tensors-only .pth)
    weights_strict: bool = True  # false: take the tensors that fit, leave the others random
    image_size: list[int] = field(default_factory=lambda: [224, 224])  # height, width
    resize: str = "stretch"  # stretch | crop | pad | reflect
    mean: list[float] | None = None  # None: the backbone's own
    std: list[float] | None = None
    threshold: float = 0.5  # fake if probability >= threshold
    map_threshold: float = 0.5  # artifact if heatmap > map_threshold
    # `artifactnet calibrate` fits these three on validation images
    temperature: float = 1.0  # divides the logit (Guo et al. 2017)
    fake_from: float | None = None  # verdict "fake" if probability >= fake_from,
    real_below: float | None = None  # "real" if below real_below, else "uncertain"
    drop_rate: float = 0.0
    drop_path_rate: float = 0.0
    attention: AttentionConfig = field(default_factory=AttentionConfig)
    segmentation: SegmentationConfig = field(default_factory=SegmentationConfig)
    heatmap: HeatmapConfig = field(default_factory=HeatmapConfig)
    context: ContextConfig = field(default_factory=ContextConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)

    @property
    def limits(self) -> tuple[float, float] | None:
        """``(real_below, fake_from)``: between them a verdict is uncertain; None: it never is."""
        if self.real_below is None or self.fake_from is None:
            return None
        return self.real_below, self.fake_from


@dataclass
class AlignmentConfig:
    """Attention alignment (X-AIGD Sec. 6.1)."""

    weight: float = 0.1  # beta; 0 is the baseline
    benign_weight: float = 0.4  # lambda: weight of patches without artifact
    every: int = 1  # align at every k-th optimizer step, k times as strongly
    # with what attention is aligned in annotated fakes: artifact | random | benign | saliency
    mask: str = "artifact"
    segments: str | None = None  # benign: folder of GENERATOR/UID.png (labels) or GENERATOR/UID/
    saliency: str | None = None  # saliency: folder of maps; None: the spectral residual


@dataclass
class SegmentationLossConfig:
    """Weighted cross-entropy of the segmentation heads (X-AIGD B.2)."""

    weight: float = 0.0  # main head; the paper's is 1
    auxiliary_weight: float = 0.2  # auxiliary head; used where weight is above 0
    class_weights: str = "inverse"  # of pixel frequency: inverse | inverse_sqrt | none


@dataclass
class HeatmapLossConfig:
    """Heatmap head against annotated heatmaps, masks and scores (HEIE Sec. 3)."""

    focal: float = 0.0  # of the final heatmap
    gamma: float = 2.0  # focal exponent
    laplace: float = 0.0  # likelihood of every level under its own deviation
    correlation: float = 0.0  # 1 - CC of images that have artifacts
    score: float = 0.0  # squared error of the plausibility score


@dataclass
class DistillConfig:
    """Learning from a teacher's heatmaps, deviations, scores and verdicts."""

    teacher: str | None = None  # a run, a .safetensors file, or a folder of heatmaps
    cache: str | None = None  # folder of its answers; None: below config.out
    side: int = 128  # longer side of a stored heatmap, pixels
    confidence: bool = True  # weigh each pixel by the teacher's confidence
    laplace: float = 0.2  # likelihood of the teacher's heatmap
    divergence: float = 0.1  # KL of the maps as distributions
    correlation: float = 1.0  # 1 - CC
    score: float = 1.0  # squared error of the score
    logit: float = 0.5  # cross-entropy with the teacher's probability
    feature: float = 0.0  # how images of a batch relate by features (Tung & Mori: 3000)


@dataclass
class LossConfig:
    """Weights of the loss terms."""

    bce: float = 1.0
    text: float = 0.0  # mllm: cross-entropy of the chain of thought
    # mllm: each image token is to be near the embedding of the word for the artifact it shows
    words: float = 0.0
    segmentation: SegmentationLossConfig = field(default_factory=SegmentationLossConfig)
    heatmap: HeatmapLossConfig = field(default_factory=HeatmapLossConfig)
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)


@dataclass
class AugmentConfig:
    """Training augmentation; evaluation uses the model's preprocessing alone."""

    jpeg_quality: list[int] = field(default_factory=lambda: [60, 100])  # [] switches it off
    jpeg_on: str = "auto"  # auto | both | fake | none; see data.checks.choose_jpeg_classes
    webp: float = 0.0  # share of the compressions that are WebP instead of JPEG
    resave: float = 0.0  # probability of a second compression, with a resize between them
    blur: float = 0.0  # probability of a Gaussian blur of 0.3 to 1.5 pixels
    align_compression: bool = False  # re-encode a fake like its real twin (xaigd columns)
    hflip: float = 0.5
    vflip: float = 0.0
    rotate: float = 0.0  # probability of a quarter turn
    color: float = 0.0  # strength 0..1 of random brightness, contrast, saturation and gamma
    scale: list[float] = field(default_factory=lambda: [1.0, 1.0])  # random resize, before crop
    crop: bool = False  # random crop at model size instead of the model's resize policy
    crop_size: list[int] | None = None  # height, width of training crops; None: model.image_size
    crop_artifact: bool = False  # a crop of an annotated fake holds some of its artifact
    max_category_ratio: float = 0.75  # of one class in a crop (mmseg's cat_max_ratio)


@dataclass
class DataConfig:
    """Where images come from."""

    name: str = "demo"  # demo | folder | xaigd | manifest
    root: str | None = None
    real_root: str | None = None  # xaigd: folder of real images, file stem = uid
    extra_real: bool = False  # xaigd: also use real images of unlabelled uids
    unlabeled: bool = False  # xaigd: also use the unlabeled_* shards
    unlabeled_val: int | None = None  # xaigd: validate on that many uids of unlabeled_train
    generators: list[str] = field(default_factory=list)  # keep only these; [] keeps all
    val_fraction: float = 0.1  # of the training uids, where the data has no val split
    folds: int | None = None  # cross-validation: all images in so many folds; None: off
    fold: int | None = None  # the one that is tested, from 0; the others are for training
    limit: int | None = None  # keep at most this many uids per split (for a quick try)
    batch_size: int = 8
    eval_batch_size: int | None = None  # None: batch_size
    workers: int = 0
    balance: bool = False  # as many real as fake images per epoch (repeats the rarer class)
    pairs: bool = False  # a photograph and its fakes (one uid) in the same batch
    pairs_alike: bool = False  # and with the same augmentation and crop
    levels: int | None = None  # value of white in images of more than 8 bits; None: evident
    mask_levels: dict[str, str] = field(default_factory=dict)  # folder: what each level marks
    on_error: str = "raise"  # raise | skip
    check: str = "full"  # full | counts | off
    demo_train: int = 400  # demo: fakes per split
    demo_val: int = 60
    demo_test: int = 120
    demo_size: int = 192  # demo: side of the square crops, pixels
    demo_seed: int = 0
    demo_photos: str = "all"  # demo: all | classic (scikit-image's and its like, no migan twins)
    demo_migan: float = 0.25  # demo: share of pairs whose fake was repainted by MI-GAN
    demo_categories: list[str] = field(default_factory=list)  # X-AIGD labels; [] is all seven
    demo_edits: int = 3  # demo: most edits of an image, each of another category
    demo_texts: bool = False  # demo: each image has a text that says what was done to it
    augment: AugmentConfig = field(default_factory=AugmentConfig)


@dataclass
class OptimConfig:
    """AdamW with linear warm-up and cosine decay."""

    lr: float = 1e-5  # backbone
    head_lr: float | None = None  # None: lr
    weight_decay: float = 0.05  # not on norms, biases, positions and tokens
    layer_decay: float = 1.0  # multiplies lr once per block below the last
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    warmup: float = 0.05  # share of all steps
    schedule: str = "cosine"  # cosine | linear | constant
    min_lr_ratio: float = 0.01
    clip_norm: float = 1.0  # 0 switches clipping off
    ema: float = 0.0  # decay of the weight average; 0 switches it off


@dataclass
class TrainConfig:
    """How long, where, and what is written meanwhile."""

    epochs: int = 20
    max_steps: int | None = None  # optimizer steps; ends the run earlier
    accumulate: int = 1
    precision: str = "auto"  # auto: bf16-mixed where the device has it | 32 | bf16 | 16
    device: str = "auto"  # auto | cpu | gpu
    devices: int = 1
    # auto | ddp; with mllm.base also fsdp, or deepspeed_stage_1, _2 (GPUs)
    strategy: str = "auto"
    eval_every: int = 1  # epochs
    picture_every: int = 5  # epochs; 0 switches the picture grids off
    pictures: int = 6
    log_every: int = 10  # steps
    tensorboard: bool = True
    deterministic: bool = True
    # balanced_accuracy | map_iou (heatmap) | mask_iou (segmentation) | loss
    # | joint (mean of balanced_accuracy and mask_iou) | teacher_cc (a student's agreement)
    monitor: str = "balanced_accuracy"


@dataclass
class Config:
    """A run."""

    name: str = "run"
    out: str = "runs"  # the run lives in out/name
    seed: int = 0
    resume: bool = False  # go on with the same run
    init_from: str | None = None  # start from the weights of another run, nothing else
    freeze: list[str] = field(default_factory=list)  # backbone, head, segmentation: do not learn
    freeze_blocks: int = 0  # first blocks of a plain ViT that do not learn, nor its embeddings
    overwrite: bool = False  # replace a finished run
    model: ModelConfig = field(default_factory=ModelConfig)
    mllm: MllmConfig = field(default_factory=MllmConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
