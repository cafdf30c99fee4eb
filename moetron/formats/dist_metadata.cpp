#include "moetron/formats/dist_metadata.h"

#include <algorithm>
#include <map>
#include <tuple>
#include <utility>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/formats/pickle.h"
#include "moetron/formats/torch_file.h"

namespace moetron {

namespace {

// Of a model of many experts and its optimizer; about seven times as much is held in memory.
constexpr size_t kMaxMetadataBytes = size_t{512} << 20;
constexpr size_t kMaxDims = 16;
constexpr size_t kMaxName = 1024;
// Names and values in turn. A short file can name one object many times, and each is searched.
constexpr size_t kMaxAttributeItems = 128;

}  // namespace

class DistMetadataReader {
 public:
  using Kind = PickleValue::Kind;

  DistMetadataReader(DistMetadata& metadata, const std::filesystem::path& path)
      : metadata_(metadata),
        name_(path.string()),
        pickle_(read_file(path), name_, kMaxMetadataBytes) {}

  void read() {
    const PickleValue& root = attributes(pickle_.root(), "Metadata");
    read_places(dict(root, "storage_data"));
    const PickleValue& tensors = dict(root, "state_dict_metadata");
    for (size_t i = 0; i + 1 < tensors.items.size(); i += 2) {
      const PickleValue& value = pickle_.at(tensors.items[i + 1]);
      if (!is_made_by(value, "TensorStorageMetadata")) continue;
      const std::string_view name = text(pickle_.at(tensors.items[i]), "a tensor's name");
      metadata_.tensors_.push_back(read_tensor(name, attributes(value, name)));
    }
    const auto by_name = [](const DistTensor& tensor) -> const std::string& { return tensor.name; };
    std::ranges::sort(metadata_.tensors_, {}, by_name);
    const auto twice = std::ranges::adjacent_find(metadata_.tensors_, {}, by_name);
    MT_CHECK_INPUT(twice == metadata_.tensors_.end(), name_, " holds ", twice->name, " twice");
  }

 private:
  struct Place {
    size_t file = 0;
    uint64_t begin = 0;
    uint64_t bytes = 0;
  };
  using PlaceKey = std::pair<std::string_view, std::vector<int64_t>>;  // name and offsets

  [[noreturn]] void refuse(std::string_view what) const {
    throw InputError(concat(name_, ": ", what.substr(0, kMaxName),
                            " is not as torch.distributed.checkpoint writes it"));
  }

  bool is_made_by(const PickleValue& value, std::string_view callee) const {
    return value.kind == Kind::kCall &&
           pickle_.is_global(value.callee, "torch.distributed.checkpoint.metadata", callee);
  }
  // Of an object what it was built from.
  const PickleValue& attributes(const PickleValue& value, std::string_view what) const {
    const PickleValue& state = pickle_.at(value.state);
    if (value.kind != Kind::kCall || state.kind != Kind::kDict) refuse(what);
    if (state.items.size() > kMaxAttributeItems) refuse(what);
    return state;
  }
  const PickleValue& attribute(const PickleValue& attributes, std::string_view name) const {
    const PickleValue* found = pickle_.find(attributes, name);
    if (found == nullptr) refuse(name);
    return *found;
  }
  const PickleValue& dict(const PickleValue& owner, std::string_view name) const {
    const PickleValue& found = attribute(owner, name);
    if (found.kind != Kind::kDict) refuse(name);
    return found;
  }
  std::string_view text(const PickleValue& value, std::string_view what) const {
    if (value.kind != Kind::kText || value.text.size() > kMaxName) refuse(what);
    return value.text;
  }
  int64_t count(const PickleValue& value, std::string_view what) const {
    if (value.kind != Kind::kInt || value.integer < 0) refuse(what);
    return value.integer;
  }
  // A torch.Size is a call with a tuple in a tuple.
  std::vector<int64_t> size(const PickleValue& value, std::string_view what) const {
    if (value.kind != Kind::kCall || !pickle_.is_global(value.callee, "torch", "Size"))
      refuse(what);
    const PickleValue& arguments = pickle_.at(value.arguments);
    if (arguments.items.size() != 1) refuse(what);
    const PickleValue& dims = pickle_.at(arguments.items[0]);
    const bool is_row = dims.kind == Kind::kTuple || dims.kind == Kind::kList;
    if (!is_row || dims.items.size() > kMaxDims) refuse(what);
    std::vector<int64_t> counts;
    for (const PickleId id : dims.items) counts.push_back(count(pickle_.at(id), what));
    return counts;
  }

  // The keys are MetadataIndex(fqn, offset, index), the values _StorageInfo(relative_path, offset,
  // length). What is no tensor has no offset of its own.
  void read_places(const PickleValue& storage) {
    for (size_t i = 0; i + 1 < storage.items.size(); i += 2) {
      const PickleValue& key = attributes(pickle_.at(storage.items[i]), "a key of storage_data");
      const PickleValue* offset = pickle_.find(key, "offset");
      if (offset == nullptr || offset->kind == Kind::kNone) continue;
      const std::string_view name = text(attribute(key, "fqn"), "fqn");
      const PickleValue& info = attributes(pickle_.at(storage.items[i + 1]), name);
      const PickleValue* transforms = pickle_.find(info, "transform_descriptors");
      const bool is_plain = transforms == nullptr || transforms->kind == Kind::kNone ||
                            (transforms->kind == Kind::kList && transforms->items.empty());
      MT_CHECK_INPUT(is_plain, name_, ": ", name,
                     " is stored by an extension (transform_descriptors), which is not read");
      const Place place{file_index(text(attribute(info, "relative_path"), "relative_path")),
                        static_cast<uint64_t>(count(attribute(info, "offset"), name)),
                        static_cast<uint64_t>(count(attribute(info, "length"), name))};
      const bool is_new = places_.emplace(PlaceKey(name, size(*offset, name)), place).second;
      MT_CHECK_INPUT(is_new, name_, " has two places for one part of ", name);
    }
    check_apart();
  }

  // So that all of them together are no more than the files.
  void check_apart() const {
    std::vector<Place> places;
    for (const auto& [key, place] : places_)
      if (place.bytes > 0) places.push_back(place);
    std::ranges::sort(places, {},
                      [](const Place& place) { return std::pair(place.file, place.begin); });
    for (size_t i = 1; i < places.size(); ++i)
      MT_CHECK_INPUT(places[i].file != places[i - 1].file ||
                         places[i].begin - places[i - 1].begin >= places[i - 1].bytes,
                     name_, " has two parts at one place of ", metadata_.files_[places[i].file]);
  }

  size_t file_index(std::string_view file) {
    const auto known = file_indices_.find(file);
    if (known != file_indices_.end()) return known->second;
    const bool is_name = !file.empty() && file != "." && file != ".." &&
                         file.find_first_of(std::string_view("/\0", 2)) == std::string_view::npos;
    MT_CHECK_INPUT(is_name, name_, ": relative_path \"", file, "\" is no name of a file beside it");
    metadata_.files_.emplace_back(file);
    return file_indices_.emplace(file, metadata_.files_.size() - 1).first->second;
  }

  DistTensor read_tensor(std::string_view name, const PickleValue& tensor) {
    DistTensor read{.name = std::string(name),
                    .dtype = dtype_of(attribute(tensor, "properties")),
                    .shape = size(attribute(tensor, "size"), name),
                    .boxes = {}};
    const PickleValue& chunks = attribute(tensor, "chunks");
    if (chunks.kind != Kind::kList) refuse(name);
    for (const PickleId id : chunks.items) read.boxes.push_back(read_box(read, pickle_.at(id)));
    return read;
  }

  // The properties are a tuple whose first is the dtype.
  std::optional<SafetensorsDtype> dtype_of(const PickleValue& properties) const {
    const PickleValue& state = pickle_.at(properties.state);
    const PickleValue* dtype = nullptr;
    if (state.kind == Kind::kTuple && !state.items.empty()) dtype = &pickle_.at(state.items[0]);
    if (state.kind == Kind::kDict) dtype = pickle_.find(state, "dtype");
    if (dtype == nullptr || dtype->kind != Kind::kGlobal) return std::nullopt;
    return dtype_from_torch(dtype->text);
  }

  DistBox read_box(const DistTensor& tensor, const PickleValue& chunk) {
    const PickleValue& fields = attributes(chunk, tensor.name);
    DistBox box{.offsets = size(attribute(fields, "offsets"), tensor.name),
                .sizes = size(attribute(fields, "sizes"), tensor.name)};
    bool fits =
        box.offsets.size() == tensor.shape.size() && box.sizes.size() == tensor.shape.size();
    for (size_t dim = 0; fits && dim < tensor.shape.size(); ++dim)
      fits = box.offsets[dim] <= tensor.shape[dim] &&
             box.sizes[dim] <= tensor.shape[dim] - box.offsets[dim];
    MT_CHECK_INPUT(fits, name_, ": ", tensor.name, " has a part beyond its shape ",
                   shape_text(tensor.shape));
    const auto place = places_.find(PlaceKey(tensor.name, box.offsets));
    MT_CHECK_INPUT(place != places_.end(), name_, " has no place for the part of ", tensor.name,
                   " at ", shape_text(box.offsets));
    // Else a short file could name one list of parts many times.
    MT_CHECK_INPUT(++num_boxes_ <= places_.size(), name_, " has more parts than places, of ",
                   tensor.name);
    box.file = place->second.file;
    box.begin = place->second.begin;
    box.bytes = place->second.bytes;
    return box;
  }

  DistMetadata& metadata_;
  const std::string name_;
  const Pickle pickle_;
  std::map<PlaceKey, Place> places_;
  size_t num_boxes_ = 0;
  std::map<std::string_view, size_t> file_indices_;
};

DistMetadata::DistMetadata(const std::filesystem::path& path) {
  DistMetadataReader(*this, path).read();
}

const DistTensor* DistMetadata::find(std::string_view name) const {
  const auto found = std::lower_bound(
      tensors_.begin(), tensors_.end(), name,
      [](const DistTensor& tensor, std::string_view key) { return tensor.name < key; });
  return found != tensors_.end() && found->name == name ? &*found : nullptr;
}

}  // namespace moetron
