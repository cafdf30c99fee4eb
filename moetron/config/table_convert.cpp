// Converting and comparing models.
#include "moetron/config/option_groups.h"

namespace moetron {

void declare_convert(OptionTable& table) {
  table.begin_group("convert", "Converting", {Command::kConvert});
  table.add(MT_FIELD(convert, from), "What load is; hf: a Hugging Face model directory.")
      .one_of({{"hf", ModelFormat::kHf}})
      .ours();
  table.add(MT_FIELD(convert, to), "What save becomes; hf: a Hugging Face model directory.")
      .one_of({{"hf", ModelFormat::kHf}})
      .required()
      .ours();
  table
      .add(MT_FIELD(convert, dtype),
           "Type of the weights; stored: each as it is. fp8: linear layers in 8 bits, with a scale "
           "for every block of 128 x 128, as DeepSeek releases them.")
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
  const std::string conversion = "conversion between formats";
  for (const char* name : {"load-path", "save-path", "model"})
    table.add_fieldless(name, ValueKind::kText, "Source, target and kind of a conversion.")
        .not_yet(conversion);
  for (const char* name : {"tp-size", "tpe-size", "ep-size", "pp-size"})
    table.add_fieldless(name, ValueKind::kInteger, "Layout of the converted checkpoint.")
        .not_yet(conversion);
  for (const char* name : {"use-gpu-num", "process-num"})
    table.add_fieldless(name, ValueKind::kInteger, "GPUs and processes of a conversion.")
        .not_yet(conversion);

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
