#include <limits>

#include "linalg/reference.hpp"
#include "support/catch.hpp"

using namespace prismaquant;
using namespace prismaquant::test;

namespace {

// Largest |u h u' - 1|: u is right if this is small, whatever the size of its elements.
double distance_from_inverse(matrix_view<float const> u, random_matrix const& h) {
  plain const factor(u);
  plain result = product(product(factor, plain(h.view())), transpose(factor));
  for (std::size_t i = 0; i < h.rows; ++i) result(i, i) -= 1.0;
  return largest_difference(result, plain(h.rows, h.rows));
}

bool is_upper(matrix_view<float const> u) {
  for (std::size_t r = 0; r < u.rows; ++r) {
    if (!(u(r, r) > 0.0f)) return false;
    for (std::size_t c = 0; c < r; ++c) {
      if (u(r, c) != 0.0f) return false;
    }
  }
  return true;
}

}  // namespace

TEST_CASE("factor_inverse gives the upper triangle whose square is the inverse, in every memory layout") {
  for (auto const& [name, linalg] : backends()) {
    for (std::size_t n : {1, 2, 5, 33, 64, 200}) {
      random_matrix const h = gram_of(random_matrix(2 * n, n, 3, 1.0f), 0.01f);
      for (layout how : layouts) {
        laid_out const u(h.view(), how);
        std::size_t const fillers = u.fillers();
        INFO(name << ", " << n << " columns, layout " << static_cast<int>(how));
        REQUIRE(linalg.factor_inverse(u.view()));
        REQUIRE(is_upper(u.view()));
        REQUIRE(distance_from_inverse(u.view(), h) < 1e-3);
        REQUIRE(u.fillers() == fillers);
      }
    }
  }
}

TEST_CASE("factor_inverse of a hand-made matrix") {
  // h = (4 2; 2 2), its inverse (0.5 -0.5; -0.5 1) = u'u with u = (sqrt(0.5) -sqrt(0.5); 0 sqrt(0.5)).
  for (auto const& [name, linalg] : backends()) {
    float h[4] = {4, 2, 2, 2};
    REQUIRE(linalg.factor_inverse({h, 2, 2, 2, 1}));
    float const root = std::sqrt(0.5f);
    INFO(name);
    REQUIRE(h[0] == Approx(root));
    REQUIRE(h[1] == Approx(-root));
    REQUIRE(h[2] == 0.0f);
    REQUIRE(h[3] == Approx(root));
  }
}

TEST_CASE("factor_inverse refuses what is not positive definite") {
  float const nan = std::numeric_limits<float>::quiet_NaN();
  for (auto const& [name, linalg] : backends()) {
    INFO(name);
    float negative[] = {-1.0f}, zero[] = {0.0f}, not_a_number[] = {nan};
    REQUIRE_FALSE(linalg.factor_inverse({negative, 1, 1, 1, 1}));
    REQUIRE_FALSE(linalg.factor_inverse({zero, 1, 1, 1, 1}));
    REQUIRE_FALSE(linalg.factor_inverse({not_a_number, 1, 1, 1, 1}));
    float indefinite[] = {1, 2, 2, 1};
    REQUIRE_FALSE(linalg.factor_inverse({indefinite, 2, 2, 2, 1}));

    random_matrix h = gram_of(random_matrix(200, 100, 4, 1.0f), 0.1f);
    h.elements[70 * 100 + 70] = -1e-3f;
    REQUIRE_FALSE(linalg.factor_inverse(laid_out(h.view(), layout::rows).view()));
    h.elements[70 * 100 + 70] = 1.0f;
    h.elements[70 * 100 + 20] = h.elements[20 * 100 + 70] = nan;
    REQUIRE_FALSE(linalg.factor_inverse(laid_out(h.view(), layout::rows).view()));
    h.elements[70 * 100 + 20] = h.elements[20 * 100 + 70] = std::numeric_limits<float>::infinity();
    REQUIRE_FALSE(linalg.factor_inverse(laid_out(h.view(), layout::rows).view()));
  }
}

TEST_CASE("factor_inverse stays accurate at a condition number of a million") {
  for (auto const& [name, linalg] : backends()) {
    random_matrix x(300, 64, 5, 1.0f);
    for (std::size_t r = 0; r < x.rows; ++r) {
      for (std::size_t c = 0; c < x.columns; ++c) {
        x.elements[r * 64 + c] *= std::pow(10.0f, -3.0f * static_cast<float>(c) / 63.0f);
      }
    }
    random_matrix const h = gram_of(x, 0.0f);
    laid_out const u(h.view(), layout::rows);
    INFO(name);
    REQUIRE(linalg.factor_inverse(u.view()));
    REQUIRE(distance_from_inverse(u.view(), h) < 1e-3);
  }
}

TEST_CASE("invert_upper leaves the part below the diagonal alone") {
  for (auto const& [name, linalg] : backends()) {
    for (std::size_t n : {1, 3, 32, 33, 130}) {
      random_matrix u(n, n, 6, 0.1f);
      for (std::size_t i = 0; i < n; ++i) u.elements[i * n + i] = 1.0f + static_cast<float>(i % 3);
      for (layout how : layouts) {
        laid_out const inverse(u.view(), how);
        INFO(name << ", " << n << " columns, layout " << static_cast<int>(how));
        REQUIRE(linalg.invert_upper(inverse.view()));
        plain upper(u.view()), inverted(inverse.view()), identity(n, n);
        for (std::size_t r = 0; r < n; ++r) {
          identity(r, r) = 1.0;
          for (std::size_t c = 0; c < r; ++c) {
            REQUIRE(inverted(r, c) == upper(r, c));
            upper(r, c) = inverted(r, c) = 0.0;
          }
        }
        REQUIRE(largest_difference(product(upper, inverted), identity) < 1e-4);
      }
    }
    float singular[] = {1, 2, 9, 0};
    REQUIRE_FALSE(linalg.invert_upper({singular, 2, 2, 2, 1}));
  }
}

TEST_CASE("both backends factor alike") {
  random_matrix const h = gram_of(random_matrix(400, 150, 7, 1.0f), 0.01f);
  plain const first = [&] {
    laid_out const u(h.view(), layout::rows);
    REQUIRE(backends().front().functions.factor_inverse(u.view()));
    return plain(u.view());
  }();
  for (auto const& [name, linalg] : backends()) {
    laid_out const u(h.view(), layout::rows);
    REQUIRE(linalg.factor_inverse(u.view()));
    INFO(name);
    REQUIRE(largest_difference(plain(u.view()), first) < 1e-4);
  }
}
