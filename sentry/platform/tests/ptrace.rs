//! The ptrace platform against the cases that all platforms share.
#![expect(clippy::tests_outside_test_module, reason = "an integration test")]

mod common;

use sentry_platform::ptrace::Ptrace;

cases! {
    Ptrace::new().unwrap();
    basic::system_calls_show_and_restore_all_registers
    basic::results_reach_the_application
    basic::nurseries_make_processes
    basic::memory_is_read_and_written
    basic::host_calls_change_the_address_space
    basic::host_calls_cannot_reach_beyond_the_application
    basic::atomic_operations
    basic::processes_are_copies
    basic::threads_share_memory
    basic::births_need_no_resume_of_the_parent
    basic::exceptions_are_reported
    basic::foreign_entries_do_not_reach_the_host
    basic::a_spinning_context_is_interrupted
    basic::interrupts_of_a_busy_context_are_not_lost
    basic::interrupts_from_several_threads_arrive
    basic::killing_ends_every_thread
    basic::extended_state_survives_a_signal_frame
    basic::many_processes_come_and_go
    basic::nothing_is_kept_of_what_has_ended
    basic::the_vdso_tells_the_time
    basic::processor_time_passes
    basic::a_site_that_is_used_again_keeps_working
    basic::a_site_without_room_keeps_working
    basic::an_instruction_before_a_call_may_move
    basic::memory_of_arguments_is_what_it_is
    basic::many_threads_wait_at_once
    basic::newborns_may_be_interrupted
    basic::a_segment_base_of_the_application_keeps_calls_working
    hostile::segment_bases_and_selectors
    hostile::flags
    hostile::code_of_32_bits
    hostile::signals_from_outside
    hostile::guests_cannot_confuse_each_others_files
    hostile::processes_that_die_at_any_moment
    hostile::system_call_instructions_of_the_platform
}
