# One ctest entry for each GoogleTest suite of ringway_tests: a process for each test would cost more than the tests.
# The suites are listed when ctest runs, so a new one needs no configuring.
set(prefix "")
set(environment "")
if(RINGWAY_SANITIZE)
  get_filename_component(prefix ${CMAKE_BINARY_DIR} NAME)
  set(prefix "${prefix}:")
  set(environment "ASAN_OPTIONS=detect_stack_use_after_return=1" "UBSAN_OPTIONS=print_stacktrace=1"
      "TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1")
endif()
file(GENERATE OUTPUT ${CMAKE_BINARY_DIR}/unit_tests.cmake CONTENT "
set(program [==[$<TARGET_FILE:ringway_tests>]==])
set(prefix [==[${prefix}]==])
set(environment [==[${environment}]==])
include([==[${CMAKE_CURRENT_LIST_DIR}/suites.cmake]==])
")
set_property(DIRECTORY APPEND PROPERTY TEST_INCLUDE_FILES ${CMAKE_BINARY_DIR}/unit_tests.cmake)
