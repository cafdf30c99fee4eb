#include "moetron/convert/megatron_source.h"

#include <algorithm>
#include <map>
#include <set>
#include <string_view>
#include <utility>

#include "moetron/base/error.h"
#include "moetron/base/parse_number.h"
#include "moetron/convert/megatron_args.h"
#include "moetron/convert/megatron_folder.h"
#include "moetron/convert/megatron_state.h"
#include "moetron/convert/megatron_tensors.h"
#include "moetron/formats/torch_file.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kLayer = "decoder.layers.";

// How many layers the names of a chunk count.
int64_t count_layers(const MegatronState& tensors) {
  int64_t count = 0;
  for (auto entry = tensors.lower_bound(kLayer);
       entry != tensors.end() && entry->first.starts_with(kLayer); ++entry) {
    std::string_view rest = std::string_view(entry->first).substr(kLayer.size());
    const auto layer = take_number<int64_t>(rest);
    constexpr int64_t kMostLayers = 1'000'000;
    if (layer && *layer >= 0 && *layer < kMostLayers) count = std::max(count, *layer + 1);
  }
  return count;
}

}  // namespace

class MegatronSourceBuilder {
 public:
  MegatronSourceBuilder(MegatronSource& source, fs::path folder, const ModelConfig& config)
      : source_(source), folder_(std::move(folder)), config_(config) {}

  void build() {
    read_layout();
    read_files();
    find_names();
    find_stages();
    try {
      check_layout(config_, source_.layout_);
    } catch (const ConfigError& error) {  // what cannot be written cannot have been, either
      throw InputError(concat(folder_.string(), " does not fit its config.json: ", error.what()));
    }
    place_tensors();
  }

 private:
  const MegatronState& chunk(size_t file, int64_t chunk) const {
    return files_[file][static_cast<size_t>(chunk)];
  }

  // As far as the first file tells it.
  void read_layout() {
    const std::vector<std::string> folders = rank_folders(folder_);
    MT_CHECK_INPUT(!folders.empty(), folder_.string(), " has no folder mp_rank_*");
    const TorchFile first(folder_ / folders[0] / kMegatronFile);
    MegatronLayout& layout = source_.layout_;
    layout = layout_from_args(first);
    layout.num_chunks = std::max<int64_t>(1, std::ssize(megatron_states(first)));
    MT_CHECK_INPUT(layout.tp % layout.tpe == 0 && std::cmp_equal(num_files(layout), folders.size()),
                   folder_.string(), " has ", folders.size(), " files for ", layout.tp,
                   " tensor-parallel ranks (", layout.tpe, " of experts), ", layout.pp,
                   " pipeline ranks and ", layout.ep, " expert ranks");
  }

  void read_files() {
    const MegatronLayout& layout = source_.layout_;
    ranks_ = file_ranks(layout);
    for (const MegatronRank& rank : ranks_) {
      const fs::path path = folder_ / rank_folder(layout, rank) / kMegatronFile;
      const TorchFile file(path);
      files_.emplace_back();
      for (int64_t i = 0; i < layout.num_chunks; ++i) {
        const PickleValue* state = file.find(chunk_key(layout, i));
        MT_CHECK_INPUT(state != nullptr, path.string(), " holds no \"", chunk_key(layout, i), "\"");
        files_.back().push_back(read_state(file, *state));
      }
      source_.files_.push_back(path);
    }
  }

  void find_names() {
    for (const auto& file : files_)
      for (const MegatronState& tensors : file)
        for (const auto& [name, tensor] : tensors) {
          if (name.starts_with("mtp.layers.")) mtp_ = MtpTensors::kInclude;
          if (name.ends_with(".layer_norm_weight")) source_.layout_.transformer_engine = true;
          if (name.find(".experts.linear_fc1.weight") != std::string::npos)
            source_.layout_.grouped_experts = true;
          if (name.ends_with(".experts.weight1")) source_.layout_.legacy_experts = true;
        }
    MT_CHECK_INPUT(mtp_ == MtpTensors::kLeaveOut || config_.num_mtp_layers > 0, folder_.string(),
                   " holds layers of multi-token prediction, its config.json tells of none "
                   "(num_nextn_predict_layers)");
  }

  // The layers of every stage, where the stages lie, and the rows of the embedding.
  void find_stages() {
    MegatronLayout& layout = source_.layout_;
    layout.v_placement = layout.num_chunks == 2 && layout.pp > 1 &&
                         chunk(0, 1).contains("decoder.final_layernorm.weight");
    layout.stage_layers.assign(static_cast<size_t>(layout.num_stages()), 0);
    for (size_t i = 0; i < ranks_.size(); ++i)
      for (int64_t c = 0; c < layout.num_chunks; ++c)
        layout.stage_layers[static_cast<size_t>(stage_of(layout, ranks_[i].pp, c))] =
            count_layers(chunk(i, c));
    int64_t total = 0;
    for (const int64_t layers : layout.stage_layers) total += layers;
    MT_CHECK_INPUT(total == config_.num_layers, folder_.string(), " holds ", total,
                   " layers, its config.json tells ", config_.num_layers);
    const auto embedding = chunk(0, 0).find("embedding.word_embeddings.weight");
    MT_CHECK_INPUT(embedding != chunk(0, 0).end() && embedding->second.shape.size() == 2,
                   source_.files_[0].string(), " holds no embedding.word_embeddings.weight");
    layout.padded_vocab = embedding->second.shape[0] * layout.tp;
    MT_CHECK_INPUT(layout.padded_vocab >= config_.vocab_size, folder_.string(),
                   " has a vocabulary of ", layout.padded_vocab, ", its config.json one of ",
                   config_.vocab_size);
  }

  void place_tensors() {
    const MegatronModel model(config_, source_.layout_, mtp_);
    parts_.resize(model.inventory().size());
    dtypes_.resize(model.inventory().size());
    for (size_t i = 0; i < ranks_.size(); ++i)
      for (int64_t c = 0; c < source_.layout_.num_chunks; ++c)
        place_chunk(i, c, model.chunk(ranks_[i], c));
    std::map<std::string_view, size_t> sorted;
    for (size_t i = 0; i < parts_.size(); ++i) sorted.emplace(model.inventory()[i].name, i);
    for (const auto& [name, index] : sorted) {
      const TensorInfo& info = model.inventory()[index];
      const size_t original = model.original(index);
      source_.tensors_.push_back({info.name, dtypes_[original], info.shape});
      source_.parts_.push_back(parts_[original]);
    }
  }

  void place_chunk(size_t file, int64_t chunk_index, const std::vector<MegatronTensor>& expected) {
    MegatronState& found = files_[file][static_cast<size_t>(chunk_index)];
    for (const MegatronTensor& tensor : expected) {
      const auto entry = found.find(tensor.name);
      const std::string path = source_.files_[file].string();
      MT_CHECK_INPUT(entry != found.end(), path, " holds no ", tensor.name);
      MT_CHECK_INPUT(entry->second.shape == tensor.shape, path, ": ", tensor.name,
                     " has the shape ", shape_text(entry->second.shape), ", config.json asks for ",
                     shape_text(tensor.shape));
      place(file, tensor, entry->second);
      found.erase(entry);
    }
    MT_CHECK_INPUT(found.empty(), source_.files_[file].string(), " holds ", found.begin()->first,
                   ", which the model of config.json has not");
  }

  // A part that ranks have copies of counts once.
  void place(size_t file, const MegatronTensor& tensor, const TorchTensor& stored) {
    const uint64_t element_bytes = static_cast<uint64_t>(dtype_bits(stored.dtype)) / 8;
    uint64_t offset = stored.offset;
    for (const TensorPiece& piece : tensor.pieces) {
      const bool is_new = placed_.emplace(piece.tensor, std::pair(piece.row, piece.column)).second;
      if (is_new) {
        SafetensorsDtype& dtype = dtypes_[piece.tensor];
        if (parts_[piece.tensor].empty()) dtype = stored.dtype;
        MT_CHECK_INPUT(dtype == stored.dtype, source_.files_[file].string(), ": ", tensor.name,
                       " is ", dtype_name(stored.dtype), ", on other ranks ", dtype_name(dtype));
        const uint64_t begin =
            piece.transposed ? stored.offset + static_cast<uint64_t>(piece.begin) * element_bytes
                             : offset;
        parts_[piece.tensor].push_back({.file = file,
                                        .offset = begin,
                                        .row = static_cast<uint64_t>(piece.row),
                                        .rows = static_cast<uint64_t>(piece.rows),
                                        .column = static_cast<uint64_t>(piece.column),
                                        .columns = static_cast<uint64_t>(piece.columns),
                                        .stride = static_cast<uint64_t>(piece.stride)});
      }
      offset += static_cast<uint64_t>(piece.rows * piece.columns) * element_bytes;
    }
  }

  MegatronSource& source_;
  fs::path folder_;
  const ModelConfig& config_;
  MtpTensors mtp_ = MtpTensors::kLeaveOut;
  std::vector<MegatronRank> ranks_;
  std::vector<std::vector<MegatronState>> files_;  // of each rank its chunks
  std::vector<std::vector<TensorPart>> parts_;     // by place in the inventory
  std::vector<SafetensorsDtype> dtypes_;
  std::set<std::pair<size_t, std::pair<int64_t, int64_t>>> placed_;
};

MegatronSource::MegatronSource(const fs::path& folder, const ModelConfig& config,
                               std::optional<int64_t> step) {
  MegatronSourceBuilder(*this, find_iteration(folder, step), config).build();
}

}  // namespace moetron
