"""What learners are asked, one file a lesson; `course.checks` says how to read them."""
