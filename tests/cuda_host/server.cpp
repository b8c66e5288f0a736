// The child process: reads jobs from its input, runs each kernel in three orders, answers on its output.
#include "host.hpp"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#ifdef CUDA_HOST_SANITIZE
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#else
extern "C" void __sanitizer_set_death_callback(void (*)(void));
#define __asan_poison_memory_region(address, size)
#define __asan_unpoison_memory_region(address, size)
#endif

#if !defined(__x86_64__)
#define CUDA_HOST_UCONTEXT
#endif

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace cuda_host {

constexpr size_t GUARD = 256, PAGE = 4096;

// What guards and fresh shared memory hold in each run: as numbers NaN, small and large. One alone could pass: NaN
// times anything is the same NaN again.
constexpr char POISONS[] = {char(0xFF), char(0x3D), char(0xC1)};
char poison = POISONS[0];

// ---- Fibers

struct Fiber {
    void* stack = nullptr;  // its lowest usable byte
    size_t size = 0;
    void* fake_stack = nullptr;
#ifdef CUDA_HOST_UCONTEXT
    ucontext_t context{};
#else
    void* pointer = nullptr;
#endif
};

Fiber main_fiber;
Fiber* running = &main_fiber;
std::vector<Fiber*> idle;

#ifndef CUDA_HOST_UCONTEXT
extern "C" void cuda_host_switch(void** from, void* to);
asm(R"(
.text
.globl cuda_host_switch
.type cuda_host_switch, @function
cuda_host_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size cuda_host_switch, .-cuda_host_switch
)");
#endif

void switch_to(Fiber& to) {
    Fiber& from = *running;
    running = &to;
#ifdef CUDA_HOST_SANITIZE
    __sanitizer_start_switch_fiber(&from.fake_stack, to.stack, to.size);
#endif
#ifdef CUDA_HOST_UCONTEXT
    swapcontext(&from.context, &to.context);
#else
    cuda_host_switch(&from.pointer, to.pointer);
#endif
#ifdef CUDA_HOST_SANITIZE
    __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
#endif
}

void carry();

void enter() {
#ifdef CUDA_HOST_SANITIZE
    const void* stack;
    size_t size;
    __sanitizer_finish_switch_fiber(nullptr, &stack, &size);
    if (!main_fiber.stack) main_fiber.stack = const_cast<void*>(stack), main_fiber.size = size;
#endif
    carry();
}

Fiber& idle_fiber() {
    if (!idle.empty()) {
        Fiber& fiber = *idle.back();
        idle.pop_back();
        return fiber;
    }
#ifdef CUDA_HOST_SANITIZE
    constexpr size_t usable = 64 * PAGE;
#else
    constexpr size_t usable = 16 * PAGE;
#endif
    static unsigned made = 0;
    auto memory = static_cast<char*>(mmap(nullptr, usable + PAGE, PROT_READ | PROT_WRITE,
                                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (memory == MAP_FAILED) fault("no memory for another fiber");
    mprotect(memory, PAGE, PROT_NONE);
    auto fiber = new Fiber;
    fiber->stack = memory + PAGE;
    // Tops at different places of a page: stacks would else share a few cache sets.
    fiber->size = usable - made++ % 15 * 256;
#ifdef CUDA_HOST_UCONTEXT
    getcontext(&fiber->context);
    fiber->context.uc_stack.ss_sp = fiber->stack;
    fiber->context.uc_stack.ss_size = fiber->size;
    makecontext(&fiber->context, enter, 0);
#else
    auto top = reinterpret_cast<void**>(memory + PAGE + fiber->size);
    top[-1] = nullptr;
    top[-2] = reinterpret_cast<void*>(enter);
    fiber->pointer = top - 8;
#endif
    return *fiber;
}

// ---- Guarded memory

// Fills the guards, and the memory between them.
void paint(Guarded& memory) {
    __asan_unpoison_memory_region(memory.block, memory.capacity);
    memset(memory.block, poison, memory.capacity);
    __asan_poison_memory_region(memory.block, memory.capacity);
    __asan_unpoison_memory_region(memory.data, memory.size);
}

void allocate(Guarded& memory, size_t size, size_t offset) {
    memory.size = size;
    memory.capacity = (GUARD + offset + size + 64 + GUARD - 1) / GUARD * GUARD;
    memory.block = static_cast<char*>(aligned_alloc(GUARD, memory.capacity));
    if (!memory.block) fault("no memory for %zu bytes", size);
    memory.data = memory.block + GUARD + offset;
    paint(memory);
}

void release(Guarded& memory) {
    __asan_unpoison_memory_region(memory.block, memory.capacity);
    free(memory.block);
    memory = {};
}

// The damaged guard byte nearest to the data, or null.
char* damage(const Guarded& memory) {
    char *end = memory.data + memory.size, *last = memory.block + memory.capacity;
    for (char* byte = memory.data; byte-- > memory.block;)
        if (*byte != poison) return byte;
    for (char* byte = end; byte < last; byte++)
        if (*byte != poison) return byte;
    return nullptr;
}

// ---- The block that runs

enum class State { ready, barrier, warp, ended };

struct Thread {
    uint3 index;
    unsigned number;
    State state;
    Fiber* fiber;
    const char *operation, *file;
    int line, source;
    unsigned mask;
    u64 value, result;
};

struct Group {
    unsigned mask, arrived;
    const char *operation, *file;
    int line;
};

struct Warp {
    unsigned existing = 0;
    unsigned step = 0;            // counts the times its lanes have met
    std::vector<unsigned> lanes;  // in the order of this run
    std::vector<Group> groups;
};

struct Watch {
    const char* address = nullptr;
    char expected;
    std::string found;
};

// Who touched a byte. A phase is what a block does between two barriers, a step what a warp does between two times
// that its lanes meet: accesses of one step, or of two warps in one phase, have no order.
struct Access {
    uint32_t phase;
    uint32_t step : 19, thread : 10;
    uint32_t lanes : 1, warps : 1;  // other lanes did the same in this step, other warps in this phase
};

struct Cell {
    Access read, written, updated;  // updated: by an atomic
};

// Memory in which threads can meet: the buffer of arguments, or a shared array.
struct Region {
    const char* start;
    size_t size;
    Cell* cells;  // one for each byte
    const SharedSlot* slot;
    size_t buffer;
};

struct Races {
    bool recording = false, late = false;
    uint32_t phase = 0;              // goes up over all blocks and launches, so that cells need no cleaning
    std::vector<uint32_t> blocks{};  // the first phase of each block of this launch
    std::vector<Region> buffers{}, arrays{};
};

const char* const ORDERS[] = {"ascending", "descending", "shuffled"};

const Instance* instance;
void* const* arguments;
std::vector<Thread> threads;
std::vector<Warp> warps;
std::vector<unsigned> order, ready;  // ready: the next thread last
std::vector<SharedSlot*> shared;
Thread* current;
unsigned ended, at_barrier;
u64 blocks_started;
bool in_kernel;
int run_number;
Watch watch;
Races races;

bool same_place(const char* file, int line, const char* other_file, int other_line) {
    return line == other_line && (file == other_file || !strcmp(file, other_file));
}

std::string text(const char* format, ...) __attribute__((format(printf, 1, 2)));
std::string text(const char* format, ...) {
    char buffer[1024];
    va_list values;
    va_start(values, format);
    vsnprintf(buffer, sizeof buffer, format, values);
    va_end(values);
    return buffer;
}

std::string named(const char* what, const uint3& index) {
    return text("%s (%u, %u, %u)", what, index.x, index.y, index.z);
}

std::string place() {
    return named("block", blockIdx) + ", " + named("thread", threadIdx) + ", " + ORDERS[run_number] + " order";
}

void look(const Thread& thread) {
    if (*watch.address == watch.expected) return;
    watch.found = " by " + named("block", blockIdx) + ", " + named("thread", thread.index);
    watch.address = nullptr;
}

std::string doing(const Thread& thread) {
    std::string name = named("thread", thread.index);
    if (thread.state == State::ended) return name + " has ended";
    return name + text(" waits at %s of %s:%d", thread.operation, thread.file, thread.line);
}

[[noreturn]] void stuck() {
    for (const Thread& thread : threads) {
        if (thread.state != State::warp) continue;
        for (unsigned lane = 0; lane < 32; lane++) {
            unsigned number = (thread.number & ~31u) + lane;
            if (!(thread.mask >> lane & 1) || number >= threads.size()) continue;
            const Thread& other = threads[number];
            if (other.state == State::warp && other.operation == thread.operation && other.mask == thread.mask &&
                same_place(other.file, other.line, thread.file, thread.line))
                continue;
            threadIdx = thread.index;
            fault("divergent %s at %s:%d with mask 0x%08x: lane %u of the mask never comes, %s",
                  thread.operation, thread.file, thread.line, thread.mask, lane, doing(other).c_str());
        }
    }
    const Thread *waiting = nullptr, *missing = nullptr;
    for (const Thread& thread : threads) (thread.state == State::barrier ? waiting : missing) = &thread;
    threadIdx = waiting->index;
    fault("%s at %s:%d is not reached by all threads of the block: %u of %zu wait there, %s",
          waiting->operation, waiting->file, waiting->line, at_barrier, threads.size(), doing(*missing).c_str());
}

Thread* next_thread() {
    if (__builtin_expect(watch.address != nullptr, 0)) look(*current);
    if (ready.empty()) {
        if (ended == threads.size()) return nullptr;
        stuck();
    }
    current = &threads[ready.back()];
    ready.pop_back();
    threadIdx = current->index;
    return current;
}

// Starts threads one after another; a thread that waits keeps its fiber, and another fiber goes on.
void carry() {
    for (;;) {
        instance->invoke(arguments);
        current->state = State::ended;
        ended++;
        Thread* next = next_thread();
        if (next && !next->fiber) continue;
        idle.push_back(running);
        switch_to(next ? *next->fiber : main_fiber);
    }
}

void suspend() {
    Thread* self = current;
    self->fiber = running;
    Thread* next = next_thread();
    if (next != self) switch_to(next->fiber ? *next->fiber : idle_fiber());
}

void barrier(const char* file, int line) {
    Thread& self = *current;
    self.state = State::barrier;
    self.operation = "__syncthreads()";
    self.file = file;
    self.line = line;
    static const Thread* first;
    if (!at_barrier++) first = &self;
    if (!same_place(file, line, first->file, first->line))
        fault("threads meet at different barriers: __syncthreads() at %s:%d, but %s", file, line,
              doing(*first).c_str());
    if (at_barrier == threads.size()) {
        at_barrier = 0;
        races.phase++;
        for (Thread& thread : threads) thread.state = State::ready;
        ready.assign(order.rbegin(), order.rend());
    }
    suspend();
}

int lane() { return current->number & 31; }

u64 warp(const char* operation, Exchange exchange, const char* file, int line, unsigned mask, u64 value, int source) {
    Thread& self = *current;
    unsigned first = self.number & ~31u;
    Warp& warp = warps[self.number / 32];
    if (!(mask >> lane() & 1)) fault("%s at %s:%d: the mask 0x%08x lacks the calling lane %d", operation, file, line,
                                     mask, lane());
    self.state = State::warp;
    self.operation = operation;
    self.file = file;
    self.line = line;
    self.mask = mask;
    self.value = value;
    self.source = source;
    auto group = std::find_if(warp.groups.begin(), warp.groups.end(), [&](const Group& group) {
        return group.mask == mask && group.operation == operation &&
               same_place(group.file, group.line, file, line);
    });
    if (group == warp.groups.end()) group = warp.groups.insert(group, {mask, 0, operation, file, line});
    group->arrived |= 1u << lane();
    unsigned members = mask & warp.existing;
    if (group->arrived == members) {
        warp.groups.erase(group);
        warp.step++;
        u64 votes = 0;
        for (unsigned lane : warp.lanes)
            if (members >> lane & 1) votes |= (threads[first + lane].value & 1) << lane;
        for (auto lane = warp.lanes.rbegin(); lane != warp.lanes.rend(); lane++) {
            if (!(members >> *lane & 1)) continue;
            Thread& thread = threads[first + *lane];
            if (exchange == Exchange::ballot) thread.result = votes;
            else thread.result = members >> thread.source & 1 ? threads[first + thread.source].value : ~0ull;
            thread.state = State::ready;
            ready.push_back(first + *lane);
        }
    }
    suspend();
    return self.result;
}

// ---- Races

// In the first run every access to a region is looked at, of whatever value: -fsanitize=thread puts calls of __tsan_*
// before them, which are functions of this file and not those of the thread sanitizer, whose threads ours are not.

Cell* cells_for(size_t size) {
    auto cells = static_cast<Cell*>(calloc(size, sizeof(Cell)));
    if (!cells && size) fault("no memory to look for races in %zu bytes", size);
    return cells;
}

std::string name_of(const Region& region, size_t offset);
[[noreturn]] void stop(uint64_t address, std::string message);
[[noreturn]] void too_late(uint64_t address);

// Whether nothing orders two accesses of one block.
bool meet(const Access& before, const Access& now) {
    if (before.phase != now.phase) return false;
    if (before.warps || before.thread / 32 != now.thread / 32) return true;
    return before.step == now.step && (before.lanes || before.thread != now.thread);
}

// The access to keep of two of a kind: the later one, which also stands for what it does not come after.
Access joined(const Access& before, Access now) {
    if (before.phase == now.phase) {
        now.warps = before.warps || before.thread / 32 != now.thread / 32;
        now.lanes = before.step == now.step && (before.lanes || before.thread != now.thread);
    }
    return now;
}

[[noreturn]] void race_of_threads(const Access& before, const char* which, const Region& region, size_t offset,
                                  void* caller) {
    std::string self = named("thread", current->index), other = named("thread", threads[before.thread].index);
    if (other == self) other = "another thread";
    stop(reinterpret_cast<uint64_t>(caller) - 1, other + text(which, self.c_str()) + " " +
                                                     name_of(region, offset) + " without a barrier between");
}

[[noreturn]] void race_of_blocks(const Access& before, const Region& region, size_t offset, void* caller) {
    unsigned block = std::upper_bound(races.blocks.begin(), races.blocks.end(), before.phase) -
                     races.blocks.begin() - 1;  // of the ascending order
    uint3 other{block % gridDim.x, block / gridDim.x % gridDim.y, block / gridDim.x / gridDim.y};
    stop(reinterpret_cast<uint64_t>(caller) - 1, named("block", other) + " and " + named("block", blockIdx) +
                                                     " both write " + name_of(region, offset) +
                                                     " without an atomic");
}

enum class Kind { read, write, atomic };

void note(const void* address, size_t size, Kind kind, void* caller) {
    if (races.late) too_late(reinterpret_cast<uint64_t>(caller) - 1);
    if (!races.recording) return;
    for (auto regions : {&races.arrays, &races.buffers})
        for (const Region& region : *regions) {
            size_t start = static_cast<const char*>(address) - region.start;
            if (start >= region.size) continue;
            Access now{};
            now.phase = races.phase;
            now.step = warps[current->number / 32].step;
            now.thread = current->number;
            for (size_t offset = start, end = std::min(start + size, region.size); offset < end; offset++) {
                Cell& cell = region.cells[offset];
                auto apart = [&](const Access& before, const char* which) {
                    if (meet(before, now)) race_of_threads(before, which, region, offset, caller);
                };
                switch (kind) {
                    case Kind::read:
                        apart(cell.written, " writes and %s reads");
                        apart(cell.updated, " updates by an atomic and %s reads");
                        cell.read = joined(cell.read, now);
                        break;
                    case Kind::write:
                        apart(cell.read, " reads and %s writes");
                        apart(cell.written, " and %s both write");
                        apart(cell.updated, " updates by an atomic and %s writes");
                        if (!region.slot && cell.written.phase >= races.blocks.front() &&
                            cell.written.phase < races.blocks.back())
                            race_of_blocks(cell.written, region, offset, caller);
                        cell.written = joined(cell.written, now);
                        break;
                    case Kind::atomic:
                        apart(cell.read, " reads and %s updates by an atomic");
                        apart(cell.written, " writes and %s updates by an atomic");
                        cell.updated = joined(cell.updated, now);
                }
            }
            return;
        }
}

void note_atomic(const void* address, size_t size, void* caller) { note(address, size, Kind::atomic, caller); }

#define CUDA_HOST_NOTE(name, size, kind) \
    extern "C" void __tsan_##name(void* address) { note(address, size, Kind::kind, __builtin_return_address(0)); }
#define CUDA_HOST_NOTE_SIZE(size)                          \
    CUDA_HOST_NOTE(read##size, size, read)                 \
    CUDA_HOST_NOTE(write##size, size, write)               \
    CUDA_HOST_NOTE(unaligned_read##size, size, read)       \
    CUDA_HOST_NOTE(unaligned_write##size, size, write)
CUDA_HOST_NOTE_SIZE(1)
CUDA_HOST_NOTE_SIZE(2)
CUDA_HOST_NOTE_SIZE(4)
CUDA_HOST_NOTE_SIZE(8)
CUDA_HOST_NOTE_SIZE(16)
extern "C" void __tsan_read_range(void* address, size_t size) {
    note(address, size, Kind::read, __builtin_return_address(0));
}
extern "C" void __tsan_write_range(void* address, size_t size) {
    note(address, size, Kind::write, __builtin_return_address(0));
}
extern "C" void __tsan_init() {}
extern "C" void __tsan_func_entry(void*) {}
extern "C" void __tsan_func_exit() {}

void claim(SharedSlot& slot) {
    if (!slot.memory.block) {
        allocate(slot.memory, slot.size, 0);
        races.arrays.push_back({slot.memory.data, slot.size, cells_for(slot.size), &slot, 0});
    }
    paint(slot.memory);
    slot.block = blocks_started;
    shared.push_back(&slot);
}

void run_block() {
    blocks_started++;
    races.blocks.push_back(++races.phase);
    shared.clear();
    ended = at_barrier = 0;
    for (Thread& thread : threads) thread.state = State::ready, thread.fiber = nullptr;
    ready.assign(order.rbegin(), order.rend());
    in_kernel = true;
    current = &threads[ready.back()];
    ready.pop_back();
    threadIdx = current->index;
    switch_to(idle_fiber());
    in_kernel = false;
    for (SharedSlot* slot : shared)
        if (char* byte = damage(slot->memory)) {
            long distance = byte < slot->memory.data ? byte - slot->memory.data
                                                     : byte - (slot->memory.data + slot->size);
            fault("wrote outside of shared array %s of %s:%d: %ld bytes %s, in %s", slot->name, slot->file,
                  slot->line, std::abs(distance), distance < 0 ? "before its start" : "after its end",
                  named("block", blockIdx).c_str());
        }
}

std::vector<unsigned> sequence(unsigned count, int run) {
    std::vector<unsigned> numbers(count);
    std::iota(numbers.begin(), numbers.end(), 0);
    if (run == 1) std::reverse(numbers.begin(), numbers.end());
    if (run == 2) std::shuffle(numbers.begin(), numbers.end(), std::minstd_rand(20240229));
    return numbers;
}

void run_grid(int run) {
    run_number = run;
    order = sequence(threads.size(), run);
    warps.assign((threads.size() + 31) / 32, {});
    for (unsigned number : order) {
        warps[number / 32].existing |= 1u << number % 32;
        warps[number / 32].lanes.push_back(number % 32);
    }
    races.blocks.clear();
    for (unsigned block : sequence(gridDim.x * gridDim.y * gridDim.z, run)) {
        blockIdx = {block % gridDim.x, block / gridDim.x % gridDim.y, block / gridDim.x / gridDim.y};
        run_block();
    }
}

// ---- Jobs

struct Header {
    uint32_t instance, grid[3], block[3], buffers, arguments;
};

struct BufferHeader {
    uint64_t size, address;
};

struct Argument {
    uint32_t kind, size, buffer, unused;  // kind: 'p' pointer, '0' null, else that of a scalar
    uint64_t value;                       // the offset of a pointer, or the scalar's bytes
};

enum Status : uint32_t { OK, FAULT, REFUSED };

struct Buffer {
    Guarded memory;
    bool writable = false;
    std::vector<char> input, first;
};

int output;
double limit = 10;

void write_all(const void* bytes, size_t size) {
    auto next = static_cast<const char*>(bytes);
    while (size) {
        ssize_t done = write(output, next, size);
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) _exit(1);
        next += done, size -= done;
    }
}

void read_all(void* bytes, size_t size) {
    auto next = static_cast<char*>(bytes);
    while (size) {
        ssize_t done = read(0, next, size);
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) _exit(0);
        next += done, size -= done;
    }
}

void answer(Status status, uint64_t address, const std::string& body) {
    struct {
        uint32_t status, length;
        uint64_t address;
    } header{status, uint32_t(body.size()), address};
    write_all(&header, sizeof header);
    write_all(body.data(), body.size());
}

void set_timer(double seconds) {
    itimerval timer{};
    timer.it_value.tv_sec = long(seconds);
    timer.it_value.tv_usec = long((seconds - long(seconds)) * 1e6);
    setitimer(ITIMER_REAL, &timer, nullptr);
}

[[noreturn]] void stop(uint64_t address, std::string message) {
    set_timer(0);
    if (in_kernel) message += ", in " + place();
    answer(FAULT, address, message);
    _exit(1);
}

void fault(const char* format, ...) {
    char buffer[1024];
    va_list values;
    va_start(values, format);
    vsnprintf(buffer, sizeof buffer, format, values);
    va_end(values);
    stop(0, buffer);
}

void too_late(uint64_t address) { stop(address, text("ran past %g s", limit)); }

void on_signal(int number, siginfo_t*, void* context) {
    uint64_t address = 0;
#if defined(__x86_64__)
    address = static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP];
#elif defined(__aarch64__)
    address = static_cast<ucontext_t*>(context)->uc_mcontext.pc;
#endif
    if (number == SIGALRM) {
        if (races.late || !in_kernel) too_late(address);
        races.late = true;  // The next access tells the line; here it may be one of this file.
        set_timer(0.1);
        return;
    }
    stop(address, text("died of SIG%s", sigabbrev_np(number)));
}

void on_report() { stop(0, "a sanitizer stopped it"); }

const char* word(char kind) {
    switch (kind) {
        case 'p': return "pointer";
        case '0': return "null pointer";
        case 'f': return "float";
        case 'b': return "bool";
        case 'i': return "int";
        case 'u': return "unsigned int";
    }
    return "value";
}

// What is wrong with the arguments, or nothing.
std::string mismatch(const std::vector<Argument>& sent) {
    if (sent.size() != instance->count)
        return text("%zu arguments for %u parameters", sent.size(), instance->count);
    auto integer = [](char kind) { return kind == 'i' || kind == 'u'; };
    for (unsigned i = 0; i < sent.size(); i++) {
        const Parameter& parameter = instance->parameters[i];
        char kind = char(sent[i].kind);
        if (parameter.pointer) {
            if (kind != 'p' && kind != '0')
                return text("argument %u is a scalar of %u bytes, the parameter a pointer", i, sent[i].size);
        } else if (kind == 'p' || kind == '0') {
            return text("argument %u is a %s, the parameter a scalar of %u bytes", i, word(kind), parameter.size);
        } else if (sent[i].size != parameter.size ||
                   (kind != parameter.kind && !(integer(kind) && integer(parameter.kind)))) {
            return text("argument %u is a scalar of %u bytes (%s), the parameter of %u bytes (%s)", i, sent[i].size,
                        word(kind), parameter.size, word(parameter.kind));
        }
    }
    return "";
}

std::string element(const Parameter& parameter, const char* bytes) {
    double number;
    switch (parameter.kind * 16 + parameter.size) {
        case 'f' * 16 + 4: { float value; memcpy(&value, bytes, 4); number = value; break; }
        case 'f' * 16 + 8: memcpy(&number, bytes, 8); break;
        case 'i' * 16 + 4: { int32_t value; memcpy(&value, bytes, 4); number = value; break; }
        case 'i' * 16 + 8: { int64_t value; memcpy(&value, bytes, 8); number = double(value); break; }
        case 'u' * 16 + 4: { uint32_t value; memcpy(&value, bytes, 4); number = value; break; }
        case 'u' * 16 + 8: { uint64_t value; memcpy(&value, bytes, 8); number = double(value); break; }
        default: number = static_cast<unsigned char>(*bytes);
    }
    return std::isnan(number) ? "nan" : text("%.17g", number);
}

struct Job {
    std::vector<Buffer> buffers;
    std::vector<Argument> arguments;
    std::vector<uint64_t> values;
    std::vector<void*> slots;

    // The argument that reaches a byte of a buffer, a pointer to non-const rather than another.
    unsigned reaching(size_t buffer, long offset) const {
        unsigned found = 0;
        bool any = false, writes = false;
        for (unsigned i = 0; i < arguments.size(); i++) {
            const Argument& argument = arguments[i];
            if (argument.kind != 'p' || argument.buffer != buffer) continue;
            bool constant = instance->parameters[i].constant, after = long(argument.value) <= std::max(offset, 0L);
            if (!any || (after && !constant && !writes)) found = i, any = true, writes = after && !constant;
        }
        return found;
    }

    std::string element_at(size_t buffer, size_t offset) const {
        unsigned number = reaching(buffer, long(offset));
        size_t inside = offset - arguments[number].value;
        return text("argument %u, element %zu", number, inside / instance->parameters[number].size);
    }

    void look_for_races() {
        static Cell* cells;  // they stay: those of launches before hold lower phases
        static size_t capacity;
        size_t size = 0;
        for (const Buffer& buffer : buffers) size += buffer.writable ? buffer.memory.size : 0;
        if (size > capacity) {
            free(cells);
            cells = cells_for(capacity = size);
        }
        Cell* next = cells;
        races.buffers.clear();
        for (size_t i = 0; i < buffers.size(); i++) {
            const Guarded& memory = buffers[i].memory;
            if (!buffers[i].writable) continue;
            races.buffers.push_back({memory.data, memory.size, next, nullptr, i});
            next += memory.size;
        }
        races.recording = true;
    }

    void restore() {
        for (Buffer& buffer : buffers) {
            paint(buffer.memory);
            if (buffer.memory.size) memcpy(buffer.memory.data, buffer.input.data(), buffer.memory.size);
        }
    }

    // Runs again and looks after each turn of a thread, to name the one that wrote.
    std::string culprit(char* address, char expected, int run) {
        restore();
        *address = expected;
        watch = {address, expected, ""};
        run_grid(run);
        watch.address = nullptr;
        return watch.found;
    }

    void check(int run) {
        for (size_t i = 0; i < buffers.size(); i++) {
            Buffer& buffer = buffers[i];
            const Guarded& memory = buffer.memory;
            if (char* byte = damage(memory)) {
                long offset = byte - memory.data, after = offset - long(memory.size);
                unsigned number = reaching(i, offset);
                long inside = offset - long(arguments[number].value), size = instance->parameters[number].size;
                long index = inside < 0 ? -((-inside + size - 1) / size) : inside / size;
                fault("wrote outside of its argument %u: %ld bytes %s, at element %ld%s", number,
                      offset < 0 ? -offset : after, offset < 0 ? "before its start" : "after its end", index,
                      culprit(byte, poison, run).c_str());
            }
            if (!buffer.writable && memory.size && memcmp(memory.data, buffer.input.data(), memory.size)) {
                size_t offset = differs(memory.data, buffer.input.data(), memory.size);
                fault("wrote to its input, %s%s", element_at(i, offset).c_str(),
                      culprit(memory.data + offset, buffer.input[offset], run).c_str());
            }
        }
    }

    static size_t differs(const char* a, const char* b, size_t size) {
        return std::mismatch(a, a + size, b).first - a;
    }

    void compare(int run) {
        for (size_t i = 0; i < buffers.size(); i++) {
            const Buffer& buffer = buffers[i];
            size_t size = buffer.memory.size;
            if (!buffer.writable || !size || !memcmp(buffer.memory.data, buffer.first.data(), size)) continue;
            size_t offset = differs(buffer.memory.data, buffer.first.data(), size);
            unsigned number = reaching(i, offset);
            const Parameter& parameter = instance->parameters[number];
            size_t start = arguments[number].value, index = (offset - start) / parameter.size;
            size_t at = start + index * parameter.size;
            std::string then = element(parameter, buffer.memory.data + at);
            poison = POISONS[0];
            restore();
            run_grid(run);
            bool ordered = memcmp(buffer.memory.data, buffer.first.data(), size);
            fault("the result depends on the %s: argument %u, element %zu is %s in %s and %s in %s",
                  ordered ? "order of threads (a barrier is missing?)"
                          : "bytes outside of its arguments, or in shared memory that nothing was written to",
                  number, index, element(parameter, &buffer.first[at]).c_str(),
                  ordered ? "ascending order" : "one run", then.c_str(),
                  ordered ? text("%s order", ORDERS[run]).c_str() : "another");
        }
    }

    void run() {
        for (int run = 0; run < 3; run++) {
            poison = POISONS[run];
            restore();
            if (run == 0) look_for_races();
            run_grid(run);
            races.recording = false;
            check(run);
            if (run) compare(run);
            else
                for (Buffer& buffer : buffers)
                    if (buffer.writable)
                        buffer.first.assign(buffer.memory.data, buffer.memory.data + buffer.memory.size);
        }
    }
};

const Job* running_job;

std::string name_of(const Region& region, size_t offset) {
    if (!region.slot) return running_job->element_at(region.buffer, offset);
    return text("shared array %s of %s:%d", region.slot->name, region.slot->file, region.slot->line);
}

void serve() {
    Header header;
    read_all(&header, sizeof header);
    Job job;
    std::vector<BufferHeader> shapes(header.buffers);
    read_all(shapes.data(), shapes.size() * sizeof(BufferHeader));
    job.arguments.resize(header.arguments);
    read_all(job.arguments.data(), job.arguments.size() * sizeof(Argument));
    job.buffers.resize(header.buffers);
    for (size_t i = 0; i < shapes.size(); i++) {
        allocate(job.buffers[i].memory, shapes[i].size, shapes[i].address % GUARD);
        job.buffers[i].input.resize(shapes[i].size);
        read_all(job.buffers[i].input.data(), shapes[i].size);
    }
    instance = &instances[header.instance];
    running_job = &job;
    std::string problem = mismatch(job.arguments);
    if (problem.empty()) {
        gridDim = {header.grid[0], header.grid[1], header.grid[2]};
        blockDim = {header.block[0], header.block[1], header.block[2]};
        threads.assign(blockDim.x * blockDim.y * blockDim.z, {});
        for (unsigned i = 0; i < threads.size(); i++) {
            threads[i].number = i;
            threads[i].index = {i % blockDim.x, i / blockDim.x % blockDim.y, i / blockDim.x / blockDim.y};
        }
        for (unsigned i = 0; i < job.arguments.size(); i++) {
            const Argument& argument = job.arguments[i];
            uint64_t value = argument.value;
            if (argument.kind == 'p') {
                Buffer& buffer = job.buffers[argument.buffer];
                value += reinterpret_cast<uint64_t>(buffer.memory.data);
                buffer.writable |= !instance->parameters[i].constant;
            }
            job.values.push_back(value);
        }
        for (uint64_t& value : job.values) job.slots.push_back(&value);
        arguments = job.slots.data();
        races.late = false;
        set_timer(limit);
        job.run();
        set_timer(0);
        std::string changed;
        for (Buffer& buffer : job.buffers)
            changed += buffer.writable && buffer.memory.size &&
                       memcmp(buffer.memory.data, buffer.input.data(), buffer.memory.size);
        answer(OK, 0, changed);
        for (size_t i = 0; i < changed.size(); i++)
            if (changed[i]) write_all(job.buffers[i].memory.data, job.buffers[i].memory.size);
    } else {
        answer(REFUSED, 0, problem);
    }
    for (Buffer& buffer : job.buffers) release(buffer.memory);
}

}  // namespace cuda_host

int main(int, char** words) {
    using namespace cuda_host;
    limit = atof(words[1]);
    output = dup(1);
    dup2(2, 1);  // a kernel's printf must not disturb the answers
    static char stack[64 * 1024];
    stack_t alternative{};
    alternative.ss_sp = stack;
    alternative.ss_size = sizeof stack;
    sigaltstack(&alternative, nullptr);
    struct sigaction action{};
    action.sa_sigaction = on_signal;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGALRM, &action, nullptr);
    __sanitizer_set_death_callback(on_report);
#ifndef CUDA_HOST_SANITIZE  // which has handlers of its own
    for (int number : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT}) sigaction(number, &action, nullptr);
#endif
    for (;;) serve();
}
