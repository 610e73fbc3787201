# What `cmake --install` puts where: the programs (compiler/CMakeLists.txt), the runtime, its header,
# and how pkg-config and find_package(modelcc) find them.
include(CMakePackageConfigHelpers)

install(TARGETS modelcc_shared LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
if(TARGET cuda_emulator)
  install(TARGETS cuda_emulator LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
endif()
install(FILES runtime/modelcc.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})

# The prefix as seen from the .pc file, so that an installation can be moved.
file(RELATIVE_PATH MCC_PC_PREFIX /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
configure_file(cmake/modelcc.pc.in modelcc.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/modelcc.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

set(MCC_PACKAGE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/modelcc)
configure_package_config_file(
  cmake/modelccConfig.cmake.in modelccConfig.cmake INSTALL_DESTINATION ${MCC_PACKAGE_DIR}
  PATH_VARS CMAKE_INSTALL_INCLUDEDIR CMAKE_INSTALL_LIBDIR CMAKE_INSTALL_BINDIR)
write_basic_package_version_file(modelccConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/modelccConfig.cmake
              ${PROJECT_BINARY_DIR}/modelccConfigVersion.cmake
        DESTINATION ${MCC_PACKAGE_DIR})
