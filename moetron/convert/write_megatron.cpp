#include "moetron/convert/write_megatron.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
#include <span>

#include "moetron/arch/tensors.h"
#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/base/parallel_for.h"
#include "moetron/convert/megatron_args.h"
#include "moetron/convert/megatron_folder.h"
#include "moetron/convert/megatron_tensors.h"
#include "moetron/convert/new_folder.h"
#include "moetron/convert/tensor_chunks.h"
#include "moetron/formats/torch_file.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

constexpr const char* kRelease = "release";
constexpr uint64_t kBufferBytes = uint64_t{8} << 20;

// Whether a source has the layers of multi-token prediction that its config tells of.
MtpTensors mtp_of(const TensorSource& source, const ModelConfig& config) {
  const std::string name = layer_prefix(config.num_layers) + tensors::kMtpJoin.name;
  const bool has_mtp = config.num_mtp_layers > 0 &&
                       std::ranges::any_of(source.tensors(), [&](const SafetensorsTensor& tensor) {
                         return tensor.name == name;
                       });
  return has_mtp ? MtpTensors::kInclude : MtpTensors::kLeaveOut;
}

// Where each tensor of the inventory lies in the source.
class SourcePlaces {
 public:
  SourcePlaces(const TensorSource& source, const MegatronModel& model) {
    const std::vector<SafetensorsTensor>& given = source.tensors();
    std::map<std::string_view, size_t> places;
    for (size_t i = 0; i < given.size(); ++i) places.emplace(given[i].name, i);
    for (size_t i = 0; i < model.inventory().size(); ++i) {
      const TensorInfo& tensor = model.inventory()[i];
      const auto place = places.find(tensor.name);
      const bool is_copy = model.original(i) != i;
      MT_CHECK_INPUT(is_copy || place != places.end(), "the model has no tensor ", tensor.name,
                     ", which its config.json asks for");
      places_.push_back(0);
      if (place == places.end()) continue;
      const std::vector<int64_t>& shape = given[place->second].shape;
      MT_CHECK_INPUT(shape == tensor.shape, "tensor ", tensor.name, " has the shape ",
                     shape_text(shape), ", its config.json asks for ", shape_text(tensor.shape));
      places_.back() = place->second;
      places.erase(place);
    }
    for (const auto& [name, place] : places) left_out_.emplace_back(name);
  }

  // Of a tensor that is no copy of another.
  size_t operator[](size_t tensor) const { return places_[tensor]; }
  const std::vector<std::string>& left_out() const { return left_out_; }

 private:
  std::vector<size_t> places_;
  std::vector<std::string> left_out_;
};

class MegatronWriter {
 public:
  MegatronWriter(const TensorSource& source, const ModelConfig& config,
                 const MegatronLayout& layout, const MegatronSettings& settings)
      : source_(source),
        config_(config),
        mtp_(mtp_of(source, config)),
        model_(config, layout, mtp_),
        settings_(settings),
        places_(source, model_),
        ranks_(file_ranks(layout)) {
    for (const MegatronRank& rank : ranks_)
      for (int64_t chunk = 0; chunk < layout.num_chunks; ++chunk)
        for (const MegatronTensor& tensor : model_.chunk(rank, chunk))
          total_ += tensor_bytes(dtype_of(tensor), tensor.shape).value();
  }

  MegatronReport write(const fs::path& folder) {
    parallel_for(settings_.num_threads, ranks_.size(),
                 [&](uint64_t file) { write_file_of(ranks_[file], folder); });
    return {.bytes = total_, .num_files = static_cast<int>(ranks_.size()), .left_out = left_out()};
  }
  uint64_t total_bytes() const { return total_; }

 private:
  // What has no place, and copies that are none (of embedding and head, in a layer of multi-token
  // prediction that was not trained while they were): Megatron has these once.
  std::vector<std::string> left_out() const {
    std::vector<std::string> names = places_.left_out();
    for (size_t i = 0; i < model_.inventory().size(); ++i) {
      const size_t copy = find_tensor(source_, model_.inventory()[i].name);
      const bool is_copy = model_.original(i) != i && copy < source_.tensors().size();
      if (is_copy && !has_same_bits(copy, places_[model_.original(i)]))
        names.push_back(model_.inventory()[i].name);
    }
    std::sort(names.begin(), names.end());
    return names;
  }

  bool has_same_bits(size_t one, size_t other) const {
    const SafetensorsTensor& tensor = source_.tensors()[one];
    if (tensor.dtype != source_.tensors()[other].dtype) return false;
    const auto element_bytes = static_cast<uint64_t>(dtype_bits(tensor.dtype) / 8);
    for (const TensorChunk& chunk : chunks_of(tensor, one)) {
      std::vector<std::byte> left(chunk.count * element_bytes), right(left.size());
      source_.read(one, chunk.begin, chunk.count, left);
      source_.read(other, chunk.begin, chunk.count, right);
      if (left != right) return false;
    }
    return true;
  }

  void write_file_of(const MegatronRank& rank, const fs::path& folder) {
    TorchContents contents;
    contents.args = megatron_args(config_, model_.layout(), mtp_);
    contents.values = {{"checkpoint_version", {3.0}}, {"iteration", {int64_t{0}}}};
    std::vector<std::vector<MegatronTensor>> chunks;
    for (int64_t chunk = 0; chunk < model_.layout().num_chunks; ++chunk) {
      chunks.push_back(model_.chunk(rank, chunk));
      TorchStateDict state{.key = chunk_key(model_.layout(), chunk),
                           .tensors = {},
                           .names_of_none = extra_states(chunks.back())};
      for (const MegatronTensor& tensor : chunks.back())
        state.tensors.push_back({tensor.name, dtype_of(tensor), tensor.shape});
      contents.models.push_back(std::move(state));
    }
    const fs::path place = folder / rank_folder(model_.layout(), rank);
    fs::create_directories(place);
    write_torch_file(place / kMegatronFile, contents,
                     [&](size_t chunk, size_t tensor, const TorchSink& sink) {
                       stream(chunks[chunk][tensor], sink);
                     });
  }

  SafetensorsDtype dtype_of(const MegatronTensor& tensor) const {
    const auto given = [&](const TensorPiece& piece) -> const SafetensorsTensor& {
      return source_.tensors()[places_[piece.tensor]];
    };
    const SafetensorsTensor& first = given(tensor.pieces[0]);
    for (const TensorPiece& piece : tensor.pieces)
      MT_CHECK_INPUT(given(piece).dtype == first.dtype, first.name, " is ", dtype_name(first.dtype),
                     ", ", given(piece).name, " ", dtype_name(given(piece).dtype),
                     ": Megatron has both in one parameter");
    return first.dtype;
  }

  void stream(const MegatronTensor& tensor, const TorchSink& sink) {
    const uint64_t element_bytes = static_cast<uint64_t>(dtype_bits(dtype_of(tensor))) / 8;
    int64_t rows = tensor.shape[0];
    for (const TensorPiece& piece : tensor.pieces) {
      stream(piece, element_bytes, sink);
      rows -= piece.rows;
    }
    const uint64_t padding = static_cast<uint64_t>(rows * num_columns(tensor.shape));
    std::vector<std::byte> zeros(
        static_cast<size_t>(std::min(padding * element_bytes, kBufferBytes)));
    for (uint64_t left = padding * element_bytes; left > 0;) {
      const uint64_t portion = std::min<uint64_t>(left, zeros.size());
      sink(std::span(zeros).first(portion));
      left -= portion;
    }
  }

  // Reads whole rows of the tensor, and gives the piece's columns of them.
  void stream(const TensorPiece& piece, uint64_t element_bytes, const TorchSink& sink) {
    const size_t index = places_[piece.tensor];
    const auto width = static_cast<uint64_t>(num_columns(source_.tensors()[index].shape));
    const auto columns = static_cast<uint64_t>(piece.columns);
    const uint64_t row_bytes = width * element_bytes;
    const uint64_t rows_at_once = std::max<uint64_t>(kBufferBytes / row_bytes, 1);
    std::vector<std::byte> rows;
    std::vector<std::byte> part;
    const auto end = static_cast<uint64_t>(piece.row + piece.rows);
    for (auto row = static_cast<uint64_t>(piece.row); row < end;) {
      const uint64_t count = std::min(rows_at_once, end - row);
      rows.resize(count * row_bytes);
      source_.read(index, row * width, count * width, rows);
      row += count;
      if (columns == width) {
        sink(rows);
        note(rows.size());
        continue;
      }
      part.resize(count * columns * element_bytes);
      for (uint64_t i = 0; i < count; ++i)
        std::memcpy(&part[i * columns * element_bytes],
                    &rows[i * row_bytes + static_cast<uint64_t>(piece.column) * element_bytes],
                    columns * element_bytes);
      sink(part);
      note(part.size());
    }
  }

  void note(uint64_t bytes) {
    if (!settings_.progress) return;
    const std::lock_guard lock(mutex_);
    done_ += bytes;
    settings_.progress(done_ / kBufferBytes, total_ / kBufferBytes);
  }

  const TensorSource& source_;
  const ModelConfig& config_;
  const MtpTensors mtp_;
  const MegatronModel model_;
  const MegatronSettings& settings_;
  const SourcePlaces places_;
  const std::vector<MegatronRank> ranks_;
  uint64_t total_ = 0;
  std::mutex mutex_;  // of what follows
  uint64_t done_ = 0;
};

}  // namespace

MegatronReport write_megatron(const TensorSource& source, const ModelConfig& config,
                              const MegatronLayout& layout, const std::vector<CompanionFile>& files,
                              const fs::path& folder, const MegatronSettings& settings) {
  check_layout(config, layout);
  MegatronWriter writer(source, config, layout, settings);
  NewFolder target(folder, writer.total_bytes());
  const fs::path release = target.path() / kRelease;
  fs::create_directory(release);
  MegatronReport report = writer.write(release);
  sync_folder(release);
  for (const CompanionFile& file : files) {
    fs::create_directories((target.path() / file.name).parent_path());
    write_file(target.path() / file.name, file.text);
  }
  write_file(target.path() / kLatestFile, kRelease);
  if (settings.check) settings.check(target.path(), report);
  target.commit();
  return report;
}

}  // namespace moetron
