#include "moetron/convert/torch_dist_source.h"

#include <algorithm>
#include <map>
#include <set>
#include <string_view>
#include <utility>

#include "moetron/base/error.h"
#include "moetron/base/parse_number.h"
#include "moetron/base/path.h"
#include "moetron/convert/megatron_folder.h"
#include "moetron/convert/megatron_state.h"
#include "moetron/convert/megatron_tensors.h"
#include "moetron/formats/dist_metadata.h"
#include "moetron/formats/torch_file.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kDecoderLayers = "decoder.layers.";
constexpr std::string_view kEmbeddingKey = "embedding.word_embeddings.weight";

// A global tensor that may hold a parameter, and the place of the parameter in the dimensions in
// front of its own.
struct GlobalName {
  std::string key;
  std::vector<int64_t> lead;
  std::vector<int64_t> lead_shape;
};

// Rows of a parameter that a global tensor holds.
struct GlobalRows {
  const DistTensor* tensor = nullptr;
  std::vector<int64_t> lead;
  int64_t row = 0;  // of the parameter
  int64_t rows = 0;
};

// A part of a global tensor at one place of its leading dimensions: a rectangle, row by row.
struct StoredRectangle {
  size_t file = 0;
  uint64_t offset = 0;  // bytes
  int64_t row = 0;
  int64_t rows = 0;
  int64_t column = 0;
  int64_t columns = 0;
};

bool overlap(const StoredRectangle& a, const StoredRectangle& b) {
  return a.row < b.row + b.rows && b.row < a.row + a.rows && a.column < b.column + b.columns &&
         b.column < a.column + a.columns;
}

// The norms of Megatron's own layers are saved as those of TransformerEngine, of layers with
// experts too, where that has none such.
std::string fused_name(std::string name) {
  for (const auto& [own, fused] :
       {std::pair("input_layernorm.", "self_attention.linear_qkv.layer_norm_"),
        std::pair("pre_mlp_layernorm.", "mlp.linear_fc1.layer_norm_")}) {
    const size_t at = name.find(own);
    if (at != std::string::npos) return name.replace(at, std::string_view(own).size(), fused);
  }
  return name;
}

}  // namespace

class TorchDistSourceBuilder {
 public:
  TorchDistSourceBuilder(TorchDistSource& source, const fs::path& folder, const ModelConfig& config)
      : source_(source),
        folder_(folder),
        place_((folder / kDistMetadataFile).string()),
        config_(config),
        metadata_(folder / kDistMetadataFile) {}

  void build() {
    for (const std::string& name : metadata_.files()) source_.files_.push_back(folder_ / name);
    const MtpTensors mtp = find_mtp();
    MegatronLayout layout = one_rank();
    const MegatronModel local(config_, layout, mtp);
    layout.transformer_engine = true;
    const MegatronModel engine(config_, layout, mtp);
    parts_.resize(local.inventory().size());
    dtypes_.resize(local.inventory().size());
    // Both have the same parameters in the same order, some under other names.
    const std::vector<MegatronTensor> names = local.chunk({}, 0), others = engine.chunk({}, 0);
    for (size_t i = 0; i < names.size(); ++i) place(names[i], others[i].name);
    check_rest();
    std::map<std::string_view, size_t> sorted;
    for (size_t i = 0; i < parts_.size(); ++i) sorted.emplace(local.inventory()[i].name, i);
    for (const auto& [name, index] : sorted) {
      const size_t original = local.original(index);
      source_.tensors_.push_back(
          {std::string(name), dtypes_[original], local.inventory()[index].shape});
      source_.parts_.push_back(parts_[original]);
    }
  }

 private:
  MtpTensors find_mtp() const {
    const bool has_mtp = std::ranges::any_of(metadata_.tensors(), [](const DistTensor& tensor) {
      return tensor.name.starts_with("mtp.layers.");
    });
    MT_CHECK_INPUT(!has_mtp || config_.num_mtp_layers > 0, place_,
                   " holds layers of multi-token prediction, its config.json tells of none "
                   "(num_nextn_predict_layers)");
    return has_mtp ? MtpTensors::kInclude : MtpTensors::kLeaveOut;
  }

  // Global tensors are those of a model that nobody shares.
  MegatronLayout one_rank() const {
    MegatronLayout layout;
    layout.stage_layers = {config_.num_layers};
    const DistTensor* embedding = metadata_.find(kEmbeddingKey);
    MT_CHECK_INPUT(embedding != nullptr && embedding->shape.size() == 2, place_, " holds no ",
                   kEmbeddingKey);
    layout.padded_vocab = embedding->shape[0];
    MT_CHECK_INPUT(layout.padded_vocab >= config_.vocab_size, place_, " has a vocabulary of ",
                   layout.padded_vocab, ", its config.json one of ", config_.vocab_size);
    return layout;
  }

  // What a parameter of the model on one rank may be called.
  std::vector<GlobalName> global_names(const std::string& name) const {
    std::vector<GlobalName> found = {{name, {}, {}}};
    constexpr std::string_view kLayer = ".transformer_layer.";
    if (const size_t at = name.find(kLayer); at != std::string::npos) {
      std::string later = name;
      later.replace(at, kLayer.size(), ".mtp_model_layer.");
      found.push_back({later, {}, {}});
    }
    if (name.starts_with(kDecoderLayers)) {
      std::string_view rest = std::string_view(name).substr(kDecoderLayers.size());
      const auto layer = take_number<int64_t>(rest);
      found.push_back({concat(kDecoderLayers, rest.substr(1)), {*layer}, {config_.num_layers}});
    }
    constexpr std::string_view kLocal = ".local_experts.";
    for (size_t i = 0, count = found.size(); i < count; ++i) {
      const GlobalName given = found[i];
      const size_t at = given.key.find(kLocal);
      if (at == std::string::npos) continue;
      std::string_view rest = std::string_view(given.key).substr(at + kLocal.size());
      const auto expert = take_number<int64_t>(rest);
      const std::string_view begin = std::string_view(given.key).substr(0, at);
      found[i].key = concat(begin, ".experts.", *expert, rest);
      GlobalName stacked{concat(begin, ".experts", rest), given.lead, given.lead_shape};
      stacked.lead.push_back(*expert);
      stacked.lead_shape.push_back(config_.moe->num_experts);
      found.push_back(std::move(stacked));
    }
    return found;
  }

  // Gate and up of a gated MLP may be apart, as NAME_w and NAME_v.
  std::vector<GlobalRows> find(const MegatronTensor& tensor, const std::string& other_name) {
    std::vector<GlobalName> names = global_names(tensor.name);
    for (const std::string& other : {other_name, fused_name(tensor.name)})
      for (GlobalName& name : global_names(other)) names.push_back(std::move(name));
    for (const GlobalName& name : names) {
      const int64_t rows = tensor.shape[0];
      if (const DistTensor* whole = metadata_.find(name.key)) {
        check_shape(*whole, name, tensor.shape, rows);
        return {{whole, name.lead, 0, rows}};
      }
      const DistTensor* gate = metadata_.find(name.key + "_w");
      const DistTensor* up = metadata_.find(name.key + "_v");
      if (gate == nullptr || up == nullptr) continue;
      check_shape(*gate, name, tensor.shape, rows / 2);
      check_shape(*up, name, tensor.shape, rows / 2);
      return {{gate, name.lead, 0, rows / 2}, {up, name.lead, rows / 2, rows / 2}};
    }
    throw InputError(concat(place_, " holds no ", tensor.name));
  }

  void check_shape(const DistTensor& found, const GlobalName& name,
                   const std::vector<int64_t>& shape, int64_t rows) {
    std::vector<int64_t> wanted = name.lead_shape;
    wanted.insert(wanted.end(), shape.begin(), shape.end());
    wanted[name.lead_shape.size()] = rows;
    MT_CHECK_INPUT(found.shape == wanted, place_, ": ", found.name, " has the shape ",
                   shape_text(found.shape), ", config.json asks for ", shape_text(wanted));
    MT_CHECK_INPUT(found.dtype, place_, ": ", found.name, " has a dtype that is not read");
    used_.insert(found.name);
  }

  void place(const MegatronTensor& tensor, const std::string& other_name) {
    for (const GlobalRows& rows : find(tensor, other_name)) {
      const auto stored = rectangles(rows, num_columns(tensor.shape));
      int64_t at = 0;  // row of the parameter at which the piece begins
      for (const TensorPiece& piece : tensor.pieces) {
        for (const StoredRectangle& rectangle : stored) add_part(rows, rectangle, piece, at);
        dtypes_[piece.tensor] = *rows.tensor->dtype;
        at += piece.rows;
      }
    }
  }

  // The rows that a rectangle and a piece have in common.
  void add_part(const GlobalRows& rows, const StoredRectangle& stored, const TensorPiece& piece,
                int64_t at) {
    const int64_t begin = rows.row + stored.row;
    const int64_t first = std::max(begin, at);
    const int64_t last = std::min(begin + stored.rows, at + piece.rows);
    if (first >= last || stored.columns == 0) return;
    const int64_t item_bytes = dtype_bits(*rows.tensor->dtype) / 8;
    parts_[piece.tensor].push_back(
        {.file = stored.file,
         .offset =
             stored.offset + static_cast<uint64_t>((first - begin) * stored.columns * item_bytes),
         .row = static_cast<uint64_t>(piece.row + first - at),
         .rows = static_cast<uint64_t>(last - first),
         .column = static_cast<uint64_t>(piece.column + stored.column),
         .columns = static_cast<uint64_t>(stored.columns)});
  }

  // All parts at a place of the leading dimensions, which they cover without overlap.
  std::vector<StoredRectangle> rectangles(const GlobalRows& rows, int64_t width) {
    const DistTensor& tensor = *rows.tensor;
    std::vector<StoredRectangle> found;
    for (const size_t box : boxes_at(tensor, rows.lead))
      found.push_back(rectangle(tensor, tensor.boxes[box], rows.lead));
    int64_t area = 0;
    for (size_t i = 0; i < found.size(); ++i) {
      area += found[i].rows * found[i].columns;
      for (size_t j = 0; j < i; ++j)
        MT_CHECK_INPUT(!overlap(found[i], found[j]), place_, ": two parts of ", tensor.name,
                       " overlap");
    }
    MT_CHECK_INPUT(area == rows.rows * width, place_, ": parts of ", tensor.name, " are missing");
    return found;
  }

  // The boxes of a tensor by each place of its leading dimensions.
  const std::vector<size_t>& boxes_at(const DistTensor& tensor, const std::vector<int64_t>& lead) {
    auto& places = boxes_[tensor.name];
    if (places.empty())
      for (size_t i = 0; i < tensor.boxes.size(); ++i) add_box(tensor, i, lead.size(), {}, places);
    return places[lead];
  }
  using BoxesByPlace = std::map<std::vector<int64_t>, std::vector<size_t>>;
  void add_box(const DistTensor& tensor, size_t index, size_t num_leading,
               std::vector<int64_t> lead, BoxesByPlace& places) {
    const DistBox& box = tensor.boxes[index];
    if (lead.size() == num_leading) {
      std::vector<size_t>& boxes = places[lead];
      constexpr size_t kMostBoxes = 2048;
      MT_CHECK_INPUT(boxes.size() < kMostBoxes, place_, ": ", tensor.name,
                     " is cut into more than ", kMostBoxes, " parts");
      boxes.push_back(index);
      return;
    }
    const size_t dim = lead.size();
    for (int64_t i = 0; i < box.sizes[dim]; ++i) {
      lead.push_back(box.offsets[dim] + i);
      add_box(tensor, index, num_leading, lead, places);
      lead.pop_back();
    }
  }

  StoredRectangle rectangle(const DistTensor& tensor, const DistBox& box,
                            const std::vector<int64_t>& lead) {
    const size_t dim = lead.size();
    const bool is_matrix = tensor.shape.size() == dim + 2;
    const int64_t rows = box.sizes[dim], columns = is_matrix ? box.sizes[dim + 1] : 1;
    int64_t before = 0;  // rectangles of the box in front of this one
    for (size_t i = 0; i < dim; ++i) before = before * box.sizes[i] + lead[i] - box.offsets[i];
    const auto item_bytes = static_cast<uint64_t>(dtype_bits(*tensor.dtype) / 8);
    return {.file = box.file,
            .offset = data_begin(tensor, box) +
                      static_cast<uint64_t>(before * rows * columns) * item_bytes,
            .row = box.offsets[dim],
            .rows = rows,
            .column = is_matrix ? box.offsets[dim + 1] : 0,
            .columns = columns};
  }

  // Where the elements of a box lie, within what torch.save wrote of it.
  uint64_t data_begin(const DistTensor& tensor, const DistBox& box) {
    const auto known = begins_.find(&box);
    if (known != begins_.end()) return known->second;
    const fs::path& path = source_.files_[box.file];
    const TorchFile file(path, box.begin, box.bytes);
    const TorchTensor stored = file.tensor(file.pickle().root(), tensor.name);
    const auto bytes = tensor_bytes(*tensor.dtype, box.sizes);
    MT_CHECK_INPUT(stored.dtype == *tensor.dtype && bytes && stored.bytes == *bytes, path.string(),
                   ": ", tensor.name, " is ", dtype_name(stored.dtype), " ",
                   shape_text(stored.shape), ", .metadata tells of ", dtype_name(*tensor.dtype),
                   " ", shape_text(box.sizes));
    return begins_.emplace(&box, stored.offset).first->second;
  }

  // What no parameter was found in.
  void check_rest() {
    for (const DistTensor& tensor : metadata_.tensors()) {
      if (used_.contains(tensor.name)) continue;
      if (is_extra_state(tensor.name)) continue;
      MT_CHECK_INPUT(is_of_optimizer(tensor.name), place_, " holds ", tensor.name,
                     ", which the model of config.json has not");
      source_.left_out_.push_back(tensor.name);
    }
  }

  TorchDistSource& source_;
  const fs::path folder_;
  const std::string place_;
  const ModelConfig& config_;
  const DistMetadata metadata_;
  std::set<std::string_view> used_;
  std::map<std::string_view, BoxesByPlace> boxes_;
  std::map<const DistBox*, uint64_t> begins_;
  std::vector<std::vector<TensorPart>> parts_;  // by place in the inventory
  std::vector<SafetensorsDtype> dtypes_;
};

TorchDistSource::TorchDistSource(const fs::path& folder, const ModelConfig& config,
                                 std::optional<int64_t> step) {
  const fs::path iteration = find_iteration(folder, step);
  MT_CHECK_INPUT(path_exists(iteration / kDistMetadataFile), iteration.string(), " has no ",
                 kDistMetadataFile);
  TorchDistSourceBuilder(*this, iteration, config).build();
}

}  // namespace moetron
