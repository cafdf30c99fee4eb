#include "moetron/arch/layer_range.h"

#include <algorithm>

#include "moetron/arch/tensors.h"
#include "moetron/base/error.h"
#include "moetron/base/parse_number.h"

namespace moetron {

LayerRange parse_layer_range(const std::string& text) {
  std::string_view rest = text;
  const auto first = take_number<int64_t>(rest);
  const bool has_dash = rest.starts_with('-');
  const auto last = has_dash ? parse_number<int64_t>(rest.substr(1)) : std::nullopt;
  MT_CHECK_CONFIG(first && last && *first >= 0 && *last >= *first, "load-layers (", text,
                  ") must be the numbers of a first and a last layer, as 0-6 for the first seven");
  return {*first, *last};
}

std::string range_text(const LayerRange& range) {
  return concat(range.first, "-", range.last);
}

ModelConfig take_layers(ModelConfig config, const LayerRange& range, const std::string& place) {
  MT_CHECK_CONFIG(range.last < config.num_layers, "load-layers (", range_text(range),
                  ") must be within layers 0-", config.num_layers - 1, ", which ", place,
                  " tells of");
  config.num_layers = range.count();
  config.num_mtp_layers = 0;
  if (!config.moe) return config;
  MoeConfig& moe = *config.moe;
  MT_CHECK_CONFIG(range.first % moe.decoder_sparse_step == 0, "load-layers (", range_text(range),
                  ") must begin at a multiple of decoder_sparse_step (", moe.decoder_sparse_step,
                  ") of ", place,
                  ": under other numbers, layers with and without experts would "
                  "change places");
  moe.first_k_dense_replace =
      std::clamp<int64_t>(moe.first_k_dense_replace - range.first, 0, range.count());
  std::vector<int64_t> dense;
  for (const int64_t layer : moe.mlp_only_layers)
    if (layer >= range.first && layer <= range.last) dense.push_back(layer - range.first);
  moe.mlp_only_layers = dense;
  return config;
}

std::optional<LayerName> layer_name(std::string_view tensor) {
  constexpr std::string_view kPrefix = kLayers;
  if (!tensor.starts_with(kPrefix)) return std::nullopt;
  std::string_view rest = tensor.substr(kPrefix.size());
  const auto layer = take_number<int64_t>(rest);
  if (!layer || !(rest.empty() || rest.starts_with('.'))) return std::nullopt;
  return LayerName{*layer, rest};
}

std::optional<std::string> name_in_range(std::string_view name, const LayerRange& range) {
  const auto found = layer_name(name);
  if (!found) return std::string(name);
  if (found->layer < range.first || found->layer > range.last) return std::nullopt;
  return concat(kLayers, found->layer - range.first, found->rest);
}

}  // namespace moetron
