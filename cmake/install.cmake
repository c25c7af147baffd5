# cmake --install: headers, both libraries, pkg-config and CMake packages, the program, its page, its back-end files.
include(CMakePackageConfigHelpers)
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/ringway)

set_target_properties(ringway_shared PROPERTIES EXPORT_NAME ringway)
set_target_properties(ringway_static PROPERTIES EXPORT_NAME ringway_static)
install(TARGETS ringway_static ringway_shared EXPORT ringwayTargets)
install(TARGETS ringway_program)
if(TARGET ringway_preload)
  install(TARGETS ringway_preload)
endif()
install(DIRECTORY src/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/ringway
  FILES_MATCHING PATTERN "*.h" PATTERN "*test*.h" EXCLUDE PATTERN "tools" EXCLUDE)
install(EXPORT ringwayTargets NAMESPACE ringway:: DESTINATION ${package_dir})
configure_package_config_file(cmake/ringwayConfig.cmake.in ${CMAKE_BINARY_DIR}/ringwayConfig.cmake
  INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${CMAKE_BINARY_DIR}/ringwayConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/ringwayConfig.cmake ${CMAKE_BINARY_DIR}/ringwayConfigVersion.cmake
  DESTINATION ${package_dir})
file(RELATIVE_PATH prefix_from_pc /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
string(REGEX REPLACE "/$" "" prefix_from_pc "${prefix_from_pc}")
configure_file(cmake/ringway.pc.in ringway.pc @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/ringway.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
install(FILES docs/man/ringway.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)

# The back-end program convention wants binaries that take --socket-path themselves: under these names the program is
# "ringway serve blk" and so on. The JSON holds the absolute path, known only when the prefix is: at install time.
file(RELATIVE_PATH program_from_libexec /${CMAKE_INSTALL_LIBEXECDIR}/ringway /${CMAKE_INSTALL_BINDIR}/ringway)
function(install_back_end kind type)
  install(CODE "
    set(kind ${kind})
    set(type ${type})
    set(root \"\$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}\")
    set(entry \"${CMAKE_INSTALL_LIBEXECDIR}/ringway/vhost-user-${kind}\")
    get_filename_component(binary \"\${CMAKE_INSTALL_PREFIX}/\${entry}\" ABSOLUTE)
    file(MAKE_DIRECTORY \"\${root}/${CMAKE_INSTALL_LIBEXECDIR}/ringway\")
    file(CREATE_LINK \"${program_from_libexec}\" \"\${root}/\${entry}\" SYMBOLIC)
    configure_file(\"${PROJECT_SOURCE_DIR}/cmake/50-ringway.json.in\"
      \"\${root}/${CMAKE_INSTALL_DATADIR}/qemu/vhost-user/50-ringway-${kind}.json\" @ONLY)
    message(STATUS \"Installing: \${root}/\${entry} and 50-ringway-${kind}.json\")
  ")
endfunction()
install_back_end(blk block)
install_back_end(net net)
install(FILES share/ringway/vhost_user.lua DESTINATION ${CMAKE_INSTALL_DATADIR}/ringway)
install(FILES share/systemd/ringway-blk@.service share/systemd/ringway-blk@.socket
  DESTINATION ${CMAKE_INSTALL_DATADIR}/ringway/systemd)
