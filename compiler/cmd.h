/* The commands of the driver. Each is given its arguments with its own name as argv[0] and returns
 * the exit status: 0, 1 after an error, 2 when it was called wrongly. */
#ifndef MCC_COMPILER_CMD_H
#define MCC_COMPILER_CMD_H

int cmd_opt(int argc, char **argv);

#endif
