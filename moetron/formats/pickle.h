// Python's pickles, protocols 2 to 5, read as data by a small stack machine: nothing is imported,
// called or executed. A class or function stays a name, a call of one stays a call, with its
// arguments and state beside it, and who reads decides what it stands for.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace moetron {

using PickleId = uint32_t;  // a value of one Pickle

struct PickleValue {
  enum class Kind : uint8_t {
    kNone,
    kBool,        // integer is 0 or 1
    kInt,         // within 64 bits; kOther beyond
    kFloat,       // number
    kText,        // text
    kList,        // items
    kTuple,       // items
    kDict,        // items: keys and values in turn, as they were set
    kGlobal,      // text is the name within the module, which is the text of value `callee`
    kCall,        // of the value `callee` with the tuple `arguments`; items as of a dict or a list
    kPersistent,  // what lies outside of the pickle under the id `arguments`
    kOther,       // bytes, sets, long integers: read over
  };

  Kind kind = Kind::kNone;
  PickleId callee = 0;
  PickleId arguments = 0;
  PickleId state = 0;  // of kCall, what BUILD gave it; 0, which is None, where there is none
  int64_t integer = 0;
  double number = 0;
  std::string_view text;
  std::vector<PickleId> items;
};

// Time and memory are proportional to the pickle's bytes, which may hold values that contain
// themselves: whoever walks them goes to a depth that is fixed.
class Pickle {
 public:
  static constexpr size_t kMaxBytes = size_t{64} << 20;

  // `name` opens the message of every InputError: an instruction that is unknown or cut short, a
  // stack too short for it, more than `max_bytes`.
  Pickle(std::string bytes, const std::string& name, size_t max_bytes = kMaxBytes);
  Pickle(const Pickle&) = delete;
  Pickle& operator=(const Pickle&) = delete;

  const PickleValue& root() const { return values_[root_]; }
  const PickleValue& at(PickleId id) const { return values_[id]; }

  // Whether a value is that class or function.
  bool is_global(PickleId id, std::string_view module, std::string_view name) const;
  // The last value that a dict has under a text; nullptr where it has none, or is no dict.
  const PickleValue* find(const PickleValue& dict, std::string_view key) const;

 private:
  friend class PickleMachine;

  std::string bytes_;
  std::vector<PickleValue> values_;
  PickleId root_ = 0;
};

}  // namespace moetron
