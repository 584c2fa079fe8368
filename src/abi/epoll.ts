/** Operations of epoll_ctl(2) (linux/eventpoll.h). Its events are those of poll(2), `struct epoll_event` is in arch.ts. */
export const EPOLL_CTL_ADD = 1;
export const EPOLL_CTL_DEL = 2;
export const EPOLL_CTL_MOD = 3;

/** timerfd_create(2), timerfd_settime(2) (linux/time.h, linux/timerfd.h). */
export const CLOCK_MONOTONIC = 1;
export const TFD_TIMER_ABSTIME = 1;
