#include "moetron/formats/pickle.h"

#include <bit>
#include <limits>
#include <map>
#include <utility>

#include "moetron/base/error.h"
#include "moetron/formats/pickle_opcodes.h"

namespace moetron {

using Kind = PickleValue::Kind;
using namespace pickle;

namespace {

// The values that are made once.
enum Constant : PickleId { kNoneId, kFalseId, kTrueId, kNumConstants };

}  // namespace

class PickleMachine {
 public:
  PickleMachine(Pickle& pickle, const std::string& name)
      : pickle_(pickle), name_(name), rest_(pickle.bytes_) {}

  void run(size_t max_bytes) {
    MT_CHECK_INPUT(rest_.size() <= max_bytes, name_, " has a pickle of ", rest_.size(),
                   " bytes, more than ", max_bytes);
    pickle_.values_.resize(kNumConstants);
    pickle_.values_[kFalseId].kind = Kind::kBool;
    pickle_.values_[kTrueId] = {.kind = Kind::kBool, .integer = 1};
    for (;;) {
      const auto opcode = static_cast<unsigned char>(take(1)[0]);
      if (opcode == kStop) break;
      const bool known = step_stack(opcode) || step_scalar(opcode) || step_container(opcode) ||
                         step_object(opcode);
      MT_CHECK_INPUT(known, name_, " has a pickle with the unknown instruction ", int{opcode});
    }
    pickle_.root_ = pop();
  }

 private:
  std::string_view take(uint64_t count) {
    MT_CHECK_INPUT(count <= rest_.size(), name_, " has a pickle that is cut short");
    const std::string_view taken = rest_.substr(0, size_t(count));
    rest_.remove_prefix(size_t(count));
    return taken;
  }
  uint64_t take_number(size_t bytes) {
    const std::string_view text = take(bytes);
    uint64_t number = 0;
    for (size_t i = bytes; i-- > 0;) number = number << 8 | static_cast<unsigned char>(text[i]);
    return number;
  }
  std::string_view take_line() {
    const std::string_view line = take(rest_.find('\n') + 1);
    MT_CHECK_INPUT(!line.empty(), name_, " has a pickle that is cut short");
    return line.substr(0, line.size() - 1);
  }

  PickleId add(PickleValue value) {
    pickle_.values_.push_back(std::move(value));
    return static_cast<PickleId>(pickle_.values_.size() - 1);
  }
  void push(PickleValue value) { stack_.push_back(add(std::move(value))); }
  void push_text(std::string_view text) { push({.kind = Kind::kText, .text = text}); }
  void push_other(uint64_t bytes) {
    take(bytes);
    push({.kind = Kind::kOther});
  }

  // Values above the last mark.
  size_t num_free() const { return stack_.size() - (marks_.empty() ? 0 : marks_.back()); }
  void need(size_t count) const {
    MT_CHECK_INPUT(num_free() >= count, name_, " has a pickle that takes more than it has");
  }
  PickleId pop() {
    need(1);
    const PickleId top = stack_.back();
    stack_.pop_back();
    return top;
  }
  PickleValue& top() {
    need(1);
    return pickle_.values_[stack_.back()];
  }
  std::vector<PickleId> pop_last(size_t count) {
    need(count);
    std::vector<PickleId> items(stack_.end() - std::ptrdiff_t(count), stack_.end());
    stack_.resize(stack_.size() - count);
    return items;
  }
  std::vector<PickleId> pop_to_mark() {
    MT_CHECK_INPUT(!marks_.empty(), name_, " has a pickle without a mark where it needs one");
    std::vector<PickleId> items = pop_last(num_free());
    marks_.pop_back();
    return items;
  }

  void append(const std::vector<PickleId>& added) {
    std::vector<PickleId>& items = top().items;
    items.insert(items.end(), added.begin(), added.end());
  }
  void set_items(const std::vector<PickleId>& added) {
    MT_CHECK_INPUT(added.size() % 2 == 0, name_, " has a pickle with a key that has no value");
    append(added);
  }
  void push_call(PickleId callee, PickleId arguments) {
    push({.kind = Kind::kCall, .callee = callee, .arguments = arguments});
  }
  void get(uint64_t place) {
    const auto found = memo_.find(place);
    MT_CHECK_INPUT(found != memo_.end(), name_, " has a pickle that takes what it did not keep");
    stack_.push_back(found->second);
  }
  void put(uint64_t place) {
    need(1);
    memo_[place] = stack_.back();
  }

  bool step_stack(unsigned char opcode) {
    switch (opcode) {
      case kProto:
        return take_number(1) <= 5;
      case kFrame:
        take(8);
        return true;
      case kMark:
        marks_.push_back(stack_.size());
        return true;
      case kPop:
        pop();
        return true;
      case kPopMark:
        pop_to_mark();
        return true;
      case kDup:
        need(1);
        stack_.push_back(stack_.back());
        return true;
      case kBinGet:
        get(take_number(1));
        return true;
      case kLongBinGet:
        get(take_number(4));
        return true;
      case kBinPut:
        put(take_number(1));
        return true;
      case kLongBinPut:
        put(take_number(4));
        return true;
      case kMemoize:
        put(memo_.size());
        return true;
      default:
        return false;
    }
  }

  bool step_scalar(unsigned char opcode) {
    switch (opcode) {
      case kNone:
        stack_.push_back(kNoneId);
        return true;
      case kNewTrue:
        stack_.push_back(kTrueId);
        return true;
      case kNewFalse:
        stack_.push_back(kFalseId);
        return true;
      case kBinInt:
        push({.kind = Kind::kInt, .integer = static_cast<int32_t>(take_number(4))});
        return true;
      case kBinInt1:
        push({.kind = Kind::kInt, .integer = static_cast<int64_t>(take_number(1))});
        return true;
      case kBinInt2:
        push({.kind = Kind::kInt, .integer = static_cast<int64_t>(take_number(2))});
        return true;
      case kLong1:
        push_long(take_number(1));
        return true;
      case kLong4:
        push_long(take_number(4));
        return true;
      case kBinFloat:
        push_float();
        return true;
      case kShortBinString:
      case kShortBinUnicode:
        push_text(take(take_number(1)));
        return true;
      case kBinString:
      case kBinUnicode:
        push_text(take(take_number(4)));
        return true;
      case kBinUnicode8:
        push_text(take(take_number(8)));
        return true;
      case kShortBinBytes:
        push_other(take_number(1));
        return true;
      case kBinBytes:
        push_other(take_number(4));
        return true;
      case kBinBytes8:
      case kByteArray8:
        push_other(take_number(8));
        return true;
      default:
        return false;
    }
  }

  void push_float() {
    const std::string_view text = take(8);
    uint64_t bits = 0;  // the one number of the format whose first byte is the highest
    for (const char byte : text) bits = bits << 8 | static_cast<unsigned char>(byte);
    push({.kind = Kind::kFloat, .number = std::bit_cast<double>(bits)});
  }

  // Two's complement of any length.
  void push_long(uint64_t bytes) {
    if (bytes > 8) {
      push_other(bytes);
      return;
    }
    uint64_t number = take_number(size_t(bytes));
    const bool is_negative = bytes > 0 && (number >> (8 * bytes - 1) & 1) != 0;
    if (is_negative && bytes < 8) number |= std::numeric_limits<uint64_t>::max() << (8 * bytes);
    push({.kind = Kind::kInt, .integer = static_cast<int64_t>(number)});
  }

  bool step_container(unsigned char opcode) {
    switch (opcode) {
      case kEmptyList:
        push({.kind = Kind::kList});
        return true;
      case kEmptyDict:
        push({.kind = Kind::kDict});
        return true;
      case kEmptyTuple:
        push({.kind = Kind::kTuple});
        return true;
      case kEmptySet:
        push({.kind = Kind::kOther});
        return true;
      case kFrozenSet:
        pop_to_mark();
        push({.kind = Kind::kOther});
        return true;
      case kTuple:
        push({.kind = Kind::kTuple, .items = pop_to_mark()});
        return true;
      case kTuple1:
      case kTuple2:
      case kTuple3:
        push({.kind = Kind::kTuple, .items = pop_last(size_t{1} + opcode - kTuple1)});
        return true;
      case kAppend:
        append(pop_last(1));
        return true;
      case kAppends:
      case kAddItems:
        append(pop_to_mark());
        return true;
      case kSetItem:
        set_items(pop_last(2));
        return true;
      case kSetItems:
        set_items(pop_to_mark());
        return true;
      default:
        return false;
    }
  }

  bool step_object(unsigned char opcode) {
    switch (opcode) {
      case kGlobal: {
        const PickleId module = add({.kind = Kind::kText, .text = take_line()});
        push({.kind = Kind::kGlobal, .callee = module, .text = take_line()});
        return true;
      }
      case kStackGlobal: {
        const std::vector<PickleId> names = pop_last(2);
        const PickleValue& name = pickle_.at(names[1]);
        MT_CHECK_INPUT(name.kind == Kind::kText && pickle_.at(names[0]).kind == Kind::kText, name_,
                       " has a pickle with a global that has no name");
        push({.kind = Kind::kGlobal, .callee = names[0], .text = name.text});
        return true;
      }
      case kReduce:
      case kNewObj: {
        const std::vector<PickleId> call = pop_last(2);
        push_call(call[0], call[1]);
        return true;
      }
      case kNewObjEx: {
        const std::vector<PickleId> call = pop_last(3);  // the third has arguments by name
        push_call(call[0], call[1]);
        return true;
      }
      case kBuild: {
        const PickleId state = pop();
        top().state = state;
        return true;
      }
      case kBinPersId: {
        const PickleId id = pop();
        push({.kind = Kind::kPersistent, .arguments = id});
        return true;
      }
      default:
        return false;
    }
  }

  Pickle& pickle_;
  const std::string& name_;
  std::string_view rest_;
  std::vector<PickleId> stack_;
  std::vector<size_t> marks_;  // heights of the stack
  std::map<uint64_t, PickleId> memo_;
};

Pickle::Pickle(std::string bytes, const std::string& name, size_t max_bytes)
    : bytes_(std::move(bytes)) {
  PickleMachine(*this, name).run(max_bytes);
}

bool Pickle::is_global(PickleId id, std::string_view module, std::string_view name) const {
  const PickleValue& value = values_[id];
  return value.kind == Kind::kGlobal && value.text == name && values_[value.callee].text == module;
}

const PickleValue* Pickle::find(const PickleValue& dict, std::string_view key) const {
  if (dict.kind != Kind::kDict && dict.kind != Kind::kCall) return nullptr;
  for (size_t i = dict.items.size() / 2; i-- > 0;) {
    const PickleValue& candidate = values_[dict.items[2 * i]];
    if (candidate.kind == Kind::kText && candidate.text == key)
      return &values_[dict.items[2 * i + 1]];
  }
  return nullptr;
}

}  // namespace moetron
