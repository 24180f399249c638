// Seeded random matrices.
#pragma once

#include <cstddef>
#include <random>
#include <span>
#include <vector>

#include "prismaquant/core/dense_view.hpp"

namespace prismaquant::test {

// A dense matrix of normal deviates that owns its elements.
struct random_matrix {
  random_matrix(std::size_t row_count, std::size_t column_count, unsigned seed, float deviation = 0.02f)
      : rows(row_count), columns(column_count), elements(row_count * column_count) {
    std::mt19937 generator(seed);
    std::normal_distribution<float> normal(0.0f, deviation);
    for (auto& element : elements) element = normal(generator);
  }

  matrix_view<float const> view() const { return prismaquant::view(std::span<float const>(elements), rows, columns); }

  std::size_t rows, columns;
  std::vector<float> elements;
};

}  // namespace prismaquant::test
