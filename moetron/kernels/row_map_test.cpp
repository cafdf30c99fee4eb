#include "moetron/kernels/row_map.h"

#include "moetron/base/error.h"
#include "moetron/kernels/kernel_test_support.h"

namespace moetron {
namespace {

struct MapCase {
  int64_t copies, top_k, num_experts, first, count;
};

// Qwen3 and DeepSeek-V3 on one rank and on many; odd numbers; none here.
const MapCase kCases[] = {
    {4096, 8, 16, 0, 16},      {4096, 8, 256, 0, 256}, {32768, 8, 256, 64, 32},
    {32768, 8, 1024, 0, 1024}, {1023, 3, 7, 2, 4},     {1, 1, 1, 0, 1},
    {5, 6, 160, 159, 1},       {129, 8, 16, 16, 4},    {70001, 1, 33, 0, 33}};

// Distinct experts a token, of which some are not routed; the first few are favoured.
at::Tensor random_experts(const MapCase& c) {
  const at::Tensor favour = at::arange(c.num_experts, at::kFloat).mul_(-1.0 / c.num_experts);
  const at::Tensor experts =
      std::get<1>((at::rand({c.copies, c.num_experts}) + favour).topk(c.top_k, -1));
  return experts.masked_fill_(at::rand(experts.sizes()).lt(0.02), -1);
}

struct ExpectedMap {
  at::Tensor ends, choice_of_row, row_of_choice;
  int64_t num_rows;
};

ExpectedMap build_reference(const at::Tensor& experts, const MapCase& c, int64_t alignment = 1) {
  const at::Tensor flat = experts.reshape(-1);
  const int64_t bound = flat.numel() + c.count * (alignment - 1);
  ExpectedMap r{at::empty({c.count}, at::kInt), at::full({bound}, -1, at::kInt),
                at::full(experts.sizes(), -1, at::kInt), 0};
  std::vector<std::vector<int>> choices(c.count);
  const auto* const expert = flat.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < flat.numel(); ++i) {
    const int64_t local = expert[i] - c.first;
    if (local >= 0 && local < c.count) choices[local].push_back(static_cast<int>(i));
  }
  auto* const ends = r.ends.mutable_data_ptr<int>();
  auto* const choice_of_row = r.choice_of_row.mutable_data_ptr<int>();
  auto* const row_of_choice = r.row_of_choice.mutable_data_ptr<int>();
  for (int64_t e = 0; e < c.count; ++e) {
    for (const int choice : choices[e]) {
      choice_of_row[r.num_rows] = choice;
      row_of_choice[choice] = static_cast<int>(r.num_rows++);
    }
    r.num_rows = (r.num_rows + alignment - 1) / alignment * alignment;
    ends[e] = static_cast<int>(r.num_rows);
  }
  return r;
}

TEST(RowMap, IsTheStableSortByExpert) {
  SKIP_WITHOUT_GPU();
  at::manual_seed(10);
  for (const MapCase& c : kCases) {
    SCOPED_TRACE(::testing::Message() << c.copies << " x " << c.top_k << ", " << c.count);
    const at::Tensor experts = random_experts(c), on_gpu = experts.cuda();
    ASSERT_TRUE(has_row_map(on_gpu));
    for (const int64_t alignment : {1, 8, 128}) {
      const ExpectedMap wanted = build_reference(experts, c, alignment);
      poison_gpu_memory();
      const RowMap map = build_row_map(on_gpu, c.first, c.count, alignment);
      EXPECT_TRUE(at::equal(map.ends.cpu(), wanted.ends)) << alignment;
      EXPECT_TRUE(at::equal(map.choice_of_row.cpu(), wanted.choice_of_row)) << alignment;
      EXPECT_TRUE(at::equal(map.row_of_choice.cpu(), wanted.row_of_choice)) << alignment;
    }
  }
}

// What fills up an expert's rows to the alignment is zero, and its choices' values are.
TEST(RowMap, RowsBetweenExpertsAreZero) {
  SKIP_WITHOUT_GPU();
  at::manual_seed(12);
  const MapCase& c = kCases[0];
  const at::Tensor experts = random_experts(c).cuda();
  const RowMap map = build_row_map(experts, c.first, c.count, /*alignment=*/128);
  const int64_t rows = map.ends[-1].item<int>();
  const at::Tensor hidden = random_bf16({c.copies, 64});
  const at::Tensor values = at::rand({c.copies, c.top_k}, hidden.options().dtype(at::kFloat));
  poison_gpu_memory();
  const at::Tensor gathered = gather_rows(hidden, map.row_of_choice, rows, /*zeros=*/true);
  const at::Tensor choice = map.choice_of_row.narrow(0, 0, rows).to(at::kLong);
  const at::Tensor is_filled = choice.lt(0);
  EXPECT_GT(is_filled.sum().item<int64_t>(), 0);
  const at::Tensor wanted = hidden.index_select(0, choice.clamp_min(0).floor_divide(c.top_k))
                                .masked_fill(is_filled.unsqueeze(1), 0);
  EXPECT_TRUE(at::equal(gathered, wanted));
  EXPECT_TRUE(
      at::equal(gather_choices(values, map.choice_of_row, rows),
                values.flatten().index_select(0, choice.clamp_min(0)).masked_fill(is_filled, 0)));
}

TEST(RowMap, OfNoCopiesHasNoRows) {
  SKIP_WITHOUT_GPU();
  const auto options = at::TensorOptions(at::kCUDA).dtype(at::kLong);
  const RowMap map = build_row_map(at::empty({0, 8}, options), 0, 3);
  EXPECT_TRUE(at::equal(map.ends.cpu(), at::zeros({3}, at::kInt)));
  EXPECT_EQ(gather_rows(random_bf16({0, 16}), map.row_of_choice, 0).numel(), 0);
  const RowMap elsewhere = build_row_map(at::full({2, 2}, 5, options), 0, 3);
  const at::Tensor none = random_bf16({0, 16});
  EXPECT_EQ(sum_rows(none, elsewhere.row_of_choice).abs().sum().item<double>(), 0);
}

// Rows there and back, of each kind of vector, against index_select.
TEST(RowMap, MovesRows) {
  SKIP_WITHOUT_GPU();
  at::manual_seed(11);
  for (const MapCase& c : {kCases[0], kCases[4], kCases[6]}) {
    const at::Tensor experts = random_experts(c);
    const ExpectedMap wanted = build_reference(experts, c);
    const RowMap map = build_row_map(experts.cuda(), c.first, c.count);
    const at::Tensor choices = wanted.choice_of_row.narrow(0, 0, wanted.num_rows).to(at::kLong);
    const at::Tensor copies = choices.floor_divide(c.top_k).cuda();
    for (const int64_t hidden : {4096, 7168, 100, 33, 8}) {
      const at::Tensor bytes =
          at::randint(256, {c.copies, hidden}, at::TensorOptions(at::kCUDA).dtype(at::kByte));
      poison_gpu_memory();
      EXPECT_TRUE(at::equal(gather_rows(bytes, map.row_of_choice, wanted.num_rows),
                            bytes.index_select(0, copies)));
      for (const at::ScalarType dtype : {at::kBFloat16, at::kFloat}) {
        SCOPED_TRACE(::testing::Message() << c.copies << " x " << hidden << " " << dtype);
        const at::Tensor x = random_bf16({c.copies, hidden}).to(dtype);
        poison_gpu_memory();
        const at::Tensor rows = gather_rows(x, map.row_of_choice, wanted.num_rows);
        EXPECT_TRUE(at::equal(rows, x.index_select(0, copies)));
        const at::Tensor other = at::randn_like(rows);
        const at::Tensor sums0 = at::zeros({c.copies, hidden}, x.options().dtype(at::kDouble))
                                     .index_add_(0, copies, other.to(at::kDouble));
        poison_gpu_memory();
        const at::Tensor sums = sum_rows(other, map.row_of_choice);
        EXPECT_EQ(sums.scalar_type(), dtype);
        EXPECT_LE(relative_error(sums, sums0), dtype == at::kFloat ? 1e-6 : 4e-3);
      }
    }
  }
}

// One after the other in fp32, then one rounding: the bits of the loop.
TEST(RowMap, AddsInTheOrderOfSlots) {
  SKIP_WITHOUT_GPU();
  at::manual_seed(12);
  const int64_t copies = 50, top_k = 11, hidden = 64;
  const at::Tensor row_of_choice = at::randperm(copies * top_k).view({copies, top_k});
  const at::Tensor rows = random_bf16({copies * top_k, hidden});
  at::Tensor sums = at::zeros({copies, hidden}, at::kCUDA);
  for (int64_t slot = 0; slot < top_k; ++slot) {
    sums = sums + rows.to(at::kFloat).index_select(0, row_of_choice.select(1, slot).cuda());
  }
  EXPECT_TRUE(at::equal(sum_rows(rows, row_of_choice.to(at::kInt).cuda()), sums.to(at::kBFloat16)));
}

TEST(RowMap, MovesNumbersOfChoices) {
  SKIP_WITHOUT_GPU();
  at::manual_seed(13);
  const MapCase& c = kCases[4];
  const at::Tensor experts = random_experts(c);
  const ExpectedMap wanted = build_reference(experts, c);
  const RowMap map = build_row_map(experts.cuda(), c.first, c.count);
  const at::Tensor choices = wanted.choice_of_row.narrow(0, 0, wanted.num_rows).to(at::kLong);
  const at::Tensor weights = at::randn({c.copies, c.top_k});
  const at::Tensor of_rows = weights.reshape(-1).index_select(0, choices);
  poison_gpu_memory();
  const at::Tensor found = gather_choices(weights.cuda(), map.choice_of_row, wanted.num_rows);
  EXPECT_TRUE(at::equal(found.cpu(), of_rows));
  const at::Tensor back = at::zeros({c.copies * c.top_k}).scatter_(0, choices, of_rows);
  poison_gpu_memory();
  EXPECT_TRUE(
      at::equal(scatter_choices(found, map.row_of_choice).cpu(), back.view({c.copies, c.top_k})));
}

TEST(RowMap, RefusesTensorsOnTheHost) {
  const at::Tensor experts = at::zeros({2, 2}, at::kLong);
  EXPECT_FALSE(has_row_map(experts));
  EXPECT_THROW(build_row_map(experts, 0, 2), InternalError);
}

}  // namespace
}  // namespace moetron
