// Converting and comparing models.
#include "moetron/config/option_groups.h"

namespace moetron {

void declare_convert(OptionTable& table) {
  table.begin_group("convert", "Converting", {Command::kConvert});
  table
      .add(MT_FIELD(convert, from),
           "What load is; hf: a Hugging Face model directory, megatron: Megatron's files of ranks "
           "(mp_rank_*), torch-dist: Megatron's sharded format (.metadata, *.distcp). Without it, "
           "what is found there.")
      .one_of({{"hf", ModelFormat::kHf},
               {"megatron", ModelFormat::kMegatron},
               {"torch-dist", ModelFormat::kTorchDist}})
      .ours();
  table
      .add(MT_FIELD(convert, to),
           "What save becomes; megatron: a release checkpoint in the layout of the options of "
           "parallelism.")
      .one_of({{"hf", ModelFormat::kHf},
               {"megatron", ModelFormat::kMegatron},
               {"torch-dist", Standing::kNotYet, "writing Megatron's sharded format"}})
      .ours();
  table
      .add(
          MT_FIELD(convert, dtype),
          "Type of the weights; stored: each as it is. fp8: linear layers in 8 bits, with a scale "
          "for every block of 128 x 128, as DeepSeek releases them. Megatron's files have bf16 for "
          "stored weights in 8 bits.")
      .one_of({{"stored", WeightDtype::kStored},
               {"bf16", WeightDtype::kBf16},
               {"fp16", WeightDtype::kFp16},
               {"fp32", WeightDtype::kFp32},
               {"fp8", WeightDtype::kFp8}})
      .ours();
  table
      .add(MT_FIELD(convert, shard_size),
           "The most that the tensors of one file take: a number with MB, GB or TB (powers of "
           "1000), or MiB, GiB or TiB.")
      .ours();
  table
      .add(
          MT_FIELD(convert, merge_adapter),
          "Adds the low-rank updates of this adapter, or of the newest in this folder of a run, to "
          "the weights of load.")
      .ours();
  table
      .add(
          MT_FIELD(convert, model_files),
          "Folder of config.json and the tokenizer, where load is Megatron's and has none; without "
          "it, the checkpoint's own arguments tell the model.")
      .ours();
  table
      .add(MT_FIELD(convert, make_vocab_size_divisible_by),
           "Megatron's vocabulary is padded to a multiple of this times the tensor-parallel ranks.")
      .count();
  table.add_fieldless("model", ValueKind::kText, "Kind of the model.")
      .of_guide()
      .no_effect("config.json tells what the model is");
  table.add_fieldless("use-gpu-num", ValueKind::kInteger, "GPUs of a conversion.")
      .of_guide()
      .no_effect("a conversion needs no GPU");

  table.begin_group("compare", "Comparing", {Command::kCompare});
  table
      .add(MT_FIELD(compare, models),
           "Two model directories, checkpoints among them, or two safetensors files; the name "
           "--models may be left out.")
      .required()
      .positional()
      .ours();
  table
      .add(MT_FIELD(compare, atol),
           "Elements are alike where their difference is not greater than this.")
      .at_least(0)
      .ours();
  table
      .add(MT_FIELD(compare, rtol),
           "Elements are alike, too, where their difference is not greater than this share of the "
           "greater of the two.")
      .at_least(0)
      .ours();
  table.add(MT_FIELD(compare, top), "Shows so many of the tensors that differ most.")
      .unit("tensors")
      .count_or_zero()
      .ours();
}

}  // namespace moetron
