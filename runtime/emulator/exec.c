/* Launches: workers that share the blocks, and the module's variables in global memory. */
#include "runtime/emulator/exec_state.h"

#include <stdio.h>
#include <stdlib.h>

static bool refuse(char *error, size_t bytes, const char *kernel, const char *text) {
    snprintf(error, bytes, "kernel %s: %s", kernel, text);
    return false;
}

/* --- variables ----------------------------------------------------------------------------------
 */

static void patch(ptx_function *f, const emu_variable *variables) {
    for (uint32_t i = 0; i < f->n_fixups; i++) {
        const emu_fixup *fixup = &f->fixups[i];
        uint64_t address = variables[fixup->variable].address + fixup->addend;
        uint32_t *row = f->constants + fixup->in;
        for (int lane = 0; lane < 32; lane++)
            if (fixup->narrow)
                row[lane] = (uint32_t)address;
            else
                memcpy(row + 2 * lane, &address, sizeof address);
    }
}

bool ptx_module_load(ptx_module *module, emu_memory *memory, char *error, size_t error_bytes) {
    for (uint32_t i = 0; i < module->n_variables; i++) {
        emu_variable *v = &module->variables[i];
        const emu_allocation *a = emu_memory_alloc(memory, v->bytes, false);
        if (!a) {
            for (uint32_t j = 0; j < i; j++) {
                emu_memory_free(memory, module->variables[j].address);
                module->variables[j].address = 0;
            }
            snprintf(error, error_bytes, "no memory for the %llu bytes of variable %s",
                     (unsigned long long)v->bytes, v->name);
            return false;
        }
        if (v->data)
            memcpy(a->data, v->data, (size_t)v->bytes);
        else
            memset(a->data, 0, (size_t)v->bytes);
        emu_memory_mark(a, a->base, v->bytes);
        v->address = a->base;
    }
    for (uint32_t i = 0; i < module->n_fixups; i++) {
        const emu_fixup *fixup = &module->fixups[i];
        const emu_variable *in = &module->variables[fixup->in];
        uint64_t address = module->variables[fixup->variable].address + fixup->addend;
        const emu_allocation *a = emu_memory_find(memory, in->address, in->bytes);
        memcpy(a->data + fixup->at, &address, sizeof address);
    }
    for (ptx_function *f = module->functions; f; f = f->next)
        patch(f, module->variables);
    module->memory = memory;
    return true;
}

bool ptx_module_variable(const ptx_module *module, const char *name, uint64_t *address,
                         uint64_t *bytes) {
    for (uint32_t i = 0; i < module->n_variables; i++)
        if (strcmp(module->variables[i].name, name) == 0) {
            *address = module->variables[i].address;
            *bytes = module->variables[i].bytes;
            return true;
        }
    return false;
}

/* --- workers ------------------------------------------------------------------------------------
 */

static const emu_allocation nowhere;

static size_t round_up(size_t bytes) {
    return (bytes + 127) & ~(size_t)127;
}

/* One stretch of memory for a block: shared, then of each warp registers, predicates, valid masks
 * and local memory. */
static bool place_memory(emu_worker *worker) {
    const emu_launch *launch = worker->launch;
    const ptx_function *f = launch->function;
    emu_block *block = &worker->block;
    size_t regs = round_up(4 * (size_t)f->n_words), preds = round_up(4 * (size_t)f->n_predicates);
    size_t valid = launch->checks & EMU_CHECK_UNINITIALISED
                       ? round_up(4 * ((size_t)f->n_registers + f->n_predicates))
                       : 0;
    size_t local = round_up(32 * (size_t)f->local_bytes), shared = round_up(block->shared_bytes);
    worker->memory_bytes = shared + (regs + preds + valid + local) * block->n_warps + 128;
    uint8_t *at = aligned_alloc(128, round_up(worker->memory_bytes));
    worker->memory = at;
    if (!at)
        return false;
    block->shared = at;
    at += shared;
    for (uint32_t i = 0; i < block->n_warps; i++) {
        emu_warp *w = &block->warps[i];
        w->regs = (uint32_t *)(void *)at;
        w->preds = (uint32_t *)(void *)(at + regs);
        w->valid = valid ? (uint32_t *)(void *)(at + regs + preds) : NULL;
        w->local = at + regs + preds + valid;
        at += regs + preds + valid + local;
    }
    return true;
}

static void set_up_warp(emu_worker *worker, uint32_t index) {
    const emu_launch *launch = worker->launch;
    emu_block *block = &worker->block;
    emu_warp *w = &block->warps[index];
    w->constants = launch->function->constants;
    w->index = index;
    w->block = block;
    w->worker = worker;
    w->function = launch->function;
    w->cached = &nowhere;
    w->checks = launch->checks;
    w->counting = launch->counters != NULL;
    for (uint32_t lane = 0; lane < 32; lane++) {
        uint32_t thread = 32 * index + lane;
        w->tid[0][lane] = thread % launch->block[0];
        w->tid[1][lane] = thread / launch->block[0] % launch->block[1];
        w->tid[2][lane] = thread / launch->block[0] / launch->block[1];
    }
}

static bool set_up_worker(emu_worker *worker, emu_launch_state *run) {
    const emu_launch *launch = run->launch;
    emu_block *block = &worker->block;
    worker->run = run;
    worker->launch = launch;
    worker->races = run->races;
    worker->random = launch->schedule_seed * UINT64_C(0x9e3779b97f4a7c15);
    block->worker = worker;
    block->function = launch->function;
    block->n_threads = launch->block[0] * launch->block[1] * launch->block[2];
    block->n_warps = (block->n_threads + 31) / 32;
    block->shared_bytes = launch->function->static_shared + launch->shared_bytes;
    if (!place_memory(worker))
        return false;
    uint32_t checks = 0;
    checks |= launch->checks & EMU_CHECK_SHARED_RACES ? EMU_SHADOW_RACES : 0;
    checks |= launch->checks & EMU_CHECK_UNINITIALISED ? EMU_SHADOW_UNINITIALISED : 0;
    checks |= launch->checks & EMU_CHECK_ASYNC ? EMU_SHADOW_ASYNC : 0;
    if (checks && block->shared_bytes) {
        worker->shadow = emu_shadow_create(checks);
        if (!worker->shadow)
            return false;
    }
    if (launch->checks & EMU_CHECK_GLOBAL_RACES && !(worker->within = emu_races_within_create()))
        return false;
    for (uint32_t i = 0; i < block->n_warps; i++)
        set_up_warp(worker, i);
    return true;
}

static void tear_down_worker(emu_worker *worker) {
    if (!worker)
        return;
    for (uint32_t i = 0; i < worker->block.n_warps; i++)
        free(worker->block.warps[i].copies);
    emu_dram_destroy(worker);
    emu_shadow_destroy(worker->shadow);
    emu_races_block_end(&worker->race_block);
    emu_races_within_destroy(worker->within);
    free(worker->memory);
    free(worker);
}

/* Everything as a block's threads find it. Registers and shared memory hold anything on a device;
 * here what makes a use of it stand out: zeros, and all ones (NaN). */
static bool begin_block(emu_worker *worker, uint64_t index) {
    const emu_launch *launch = worker->launch;
    const ptx_function *f = launch->function;
    emu_block *block = &worker->block;
    block->index = index;
    block->id[0] = (uint32_t)(index % launch->grid[0]);
    block->id[1] = (uint32_t)(index / launch->grid[0] % launch->grid[1]);
    block->id[2] = (uint32_t)(index / launch->grid[0] / launch->grid[1]);
    memset(block->barriers, 0, sizeof block->barriers);
    memset(block->shared, 0xff, block->shared_bytes);
    for (uint32_t i = 0; i < block->n_warps; i++) {
        emu_warp *w = &block->warps[i];
        uint32_t lanes = block->n_threads - 32 * i;
        w->live = lanes >= 32 ? EMU_FULL : (1u << lanes) - 1;
        w->active = w->live;
        w->pc = 0;
        w->wait_pc = UINT32_MAX;
        w->n_groups = 0;
        w->state = EMU_WARP_READY;
        w->carry = w->back_edges = 0;
        w->executed = 0;
        w->heard = false;
        w->n_copies = 0;
        memset(w->committed, 0, sizeof w->committed);
        memset(w->regs, 0, 4 * (size_t)f->n_words);
        memset(w->preds, 0, 4 * (size_t)f->n_predicates);
        if (w->valid)
            memset(w->valid, 0, 4 * ((size_t)f->n_registers + f->n_predicates));
        memset(w->local, 0xff, 32 * (size_t)f->local_bytes);
    }
    if (worker->races)
        emu_races_block_begin(&worker->race_block, index);
    if (worker->within && !emu_races_within_begin(worker->within, block->n_threads))
        return false;
    return !worker->shadow ||
           emu_shadow_begin(worker->shadow, block->shared_bytes, block->n_threads);
}

static void *work(void *argument) {
    emu_worker *worker = argument;
    emu_launch_state *run = worker->run;
    while (!__atomic_load_n(&run->stop, __ATOMIC_RELAXED)) {
        uint64_t i = __atomic_fetch_add(&run->next, 1, __ATOMIC_RELAXED);
        if (i >= run->n_blocks)
            break;
        uint64_t index = (i * run->multiply + run->add) % run->n_blocks;
        if (!begin_block(worker, index)) {
            snprintf(worker->error, sizeof worker->error, "out of memory");
            worker->failed = true;
        }
        if (worker->failed || !emu_block_run(&worker->block)) {
            __atomic_store_n(&run->stop, 1, __ATOMIC_RELAXED);
            break;
        }
    }
    return NULL;
}

/* A random order of the blocks that needs no memory. */
static void choose_order(emu_launch_state *run, uint64_t seed) {
    run->multiply = 1;
    run->add = 0;
    if (!seed || run->n_blocks < 2 || run->n_blocks > UINT32_MAX)
        return;
    uint64_t state = seed;
    run->add = emu_random(&state) % run->n_blocks;
    for (int tries = 0; tries < 64; tries++) {
        uint64_t candidate = 1 + emu_random(&state) % (run->n_blocks - 1);
        uint64_t a = candidate, b = run->n_blocks;
        while (b) {
            uint64_t t = a % b;
            a = b;
            b = t;
        }
        if (a == 1) {
            run->multiply = candidate;
            return;
        }
    }
}

static void add_counters(emu_counters *to, const emu_counters *from) {
    uint64_t *t = (uint64_t *)to;
    const uint64_t *f = (const uint64_t *)from;
    for (size_t i = 0; i < sizeof *to / sizeof *t; i++)
        t[i] += f[i];
}

static bool check_launch(const emu_launch *launch, char *error, size_t error_bytes) {
    const ptx_function *f = launch->function;
    uint64_t threads = 1;
    for (int i = 0; i < 3; i++) {
        if (!launch->grid[i] || !launch->block[i] || launch->block[i] > 1024 ||
            launch->grid[i] > INT32_MAX || (i && launch->grid[i] > 65535))
            return refuse(error, error_bytes, f->name, "a grid or block of no size or too large");
        threads *= launch->block[i];
    }
    char text[160];
    if (threads > f->max_threads) {
        snprintf(text, sizeof text, "launched with %llu threads a block, made for at most %u",
                 (unsigned long long)threads, f->max_threads);
        return refuse(error, error_bytes, f->name, text);
    }
    for (int i = 0; i < 3; i++)
        if (f->required[0] && launch->block[i] != f->required[i])
            return refuse(error, error_bytes, f->name,
                          "launched with a block that is not .reqntid");
    if (launch->shared_bytes > 1u << 20)
        return refuse(error, error_bytes, f->name, "more than 1 MiB of shared memory");
    if (f->uses_global_variables && f->module->memory != launch->memory)
        return refuse(error, error_bytes, f->name, "its module's variables are not loaded");
    if (f->param_bytes && !launch->params)
        return refuse(error, error_bytes, f->name, "launched without parameters");
    return true;
}

bool emu_run(const emu_launch *launch, char *error, size_t error_bytes) {
    if (error_bytes)
        error[0] = 0;
    if (!check_launch(launch, error, error_bytes))
        return false;
    emu_launch_state run = {.launch = launch, .params = launch->params};
    run.n_blocks = (uint64_t)launch->grid[0] * launch->grid[1] * launch->grid[2];
    choose_order(&run, launch->schedule_seed);
    uint64_t n = launch->threads < 1 ? 1 : (uint64_t)launch->threads;
    if (n > run.n_blocks)
        n = run.n_blocks;
    if (n > 256)
        n = 256;
    emu_worker *workers[256];
    run.workers = workers;
    bool good = true;
    if (launch->checks & EMU_CHECK_GLOBAL_RACES && run.n_blocks > 1) {
        if (run.n_blocks > EMU_RACES_MOST_BLOCKS)
            return refuse(error, error_bytes, launch->function->name,
                          "races between so many blocks cannot be checked");
        run.races = emu_races_create();
        good = run.races != NULL;
    }
    for (; run.n_workers < (int)n && good; run.n_workers++) {
        emu_worker *worker = calloc(1, sizeof *worker);
        workers[run.n_workers] = worker;
        good = worker && set_up_worker(worker, &run);
        if (worker)
            worker->random += (uint64_t)run.n_workers;
    }
    if (!good)
        refuse(error, error_bytes, launch->function->name, "out of memory");
    int started = 1;
    for (; good && started < run.n_workers; started++)
        if (pthread_create(&workers[started]->thread, NULL, work, workers[started]) != 0)
            break; /* fewer threads do as well */
    if (good)
        work(workers[0]);
    for (int i = 1; good && i < started; i++)
        pthread_join(workers[i]->thread, NULL);
    for (int i = 0; i < run.n_workers && good; i++)
        if (workers[i]->failed) {
            snprintf(error, error_bytes, "%s", workers[i]->error);
            good = false;
        }
    if (launch->counters) {
        emu_counters sum = {0};
        for (int i = 0; i < run.n_workers; i++)
            if (workers[i])
                add_counters(&sum, &workers[i]->counters);
        for (int k = 0; k < 16; k++)
            sum.warp_instructions += sum.by_kind[k];
        emu_count_dram(&run, &sum);
        add_counters(launch->counters, &sum);
    }
    for (int i = 0; i < run.n_workers; i++)
        tear_down_worker(workers[i]);
    emu_races_destroy(run.races);
    return good;
}
