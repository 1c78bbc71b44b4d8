//! `transload top`: looks at a cluster again and again and shows it, until a key ends it. Translates between terminal, clock and [`State`];
//! what is shown and how is decided there.

mod draw;
mod panels;
mod state;
mod text;
mod workers;

use std::future::pending;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use crossterm::event::{Event, EventStream, KeyCode, KeyEventKind, KeyModifiers};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use ratatui::DefaultTerminal;
use tokio::time::{MissedTickBehavior, interval};
use transload_protocol::ClusterInfo;
use transload_runtime::{Client, ClientError};

use crate::args::{ClusterAddress, TopArgs};
use crate::cluster::client_failure;
use crate::failure::{Failure, io_failure};
use crate::info;
use crate::signals::Signals;

use state::{Command, State};

/// Runs `transload top`.
pub(crate) async fn run(args: TopArgs, signals: &Signals) -> Result<(), Failure> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return Err(
            Failure::usage("this draws on a terminal, and there is none")
                .hint("`transload cluster info` prints the same once, as text or with --json"),
        );
    }
    let cluster = tokio::select! {
        opened = info::open(&args.cluster) => opened?,
        _ = signals.stop() => return Err(Failure::interrupted()),
    };
    let mut state = State::new(named(&args.cluster), args.interval);
    let mut screen = Screen::open()?;
    let ended = watch(&mut screen, &mut state, &cluster.client, signals).await;
    drop(screen);
    cluster.close().await;
    ended
}

fn named(cluster: &ClusterAddress) -> String {
    match (&cluster.address, &cluster.scheduler_file) {
        (Some(address), _) => address.clone(),
        (None, Some(file)) => file.display().to_string(),
        (None, None) => String::new(),
    }
}

/// The terminal while it is ours. A panic gives it back, too, before it says anything.
struct Screen(DefaultTerminal);

impl Screen {
    fn open() -> Result<Self, Failure> {
        ratatui::try_init()
            .map(Self)
            .map_err(|error| Failure::failed(format!("cannot draw on this terminal: {error}")))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

async fn watch(
    screen: &mut Screen,
    state: &mut State,
    client: &Client,
    signals: &Signals,
) -> Result<(), Failure> {
    let start = Instant::now();
    let mut keys = EventStream::new();
    let mut ticks = interval(state.interval());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut asked: Option<BoxFuture<'_, Result<ClusterInfo, ClientError>>> = None;
    let mut answered = Duration::ZERO;
    loop {
        let drawn = screen.0.draw(|frame| state.draw(frame));
        drawn.map_err(|error| io_failure("cannot draw on the terminal", &error))?;
        let answer = async {
            match &mut asked {
                Some(answer) => answer.await,
                None => pending().await,
            }
        };
        tokio::select! {
            answer = answer => {
                asked = None;
                answered = start.elapsed();
                state.see(answer.map_err(|error| client_failure(&error))?, answered);
            }
            _ = ticks.tick() => {
                // Whoever pauses wants to know, too, that there is nothing to come back to.
                if asked.is_none() && (!state.is_paused() || !client.is_connected()) {
                    answered = start.elapsed();
                    asked = Some(client.info().boxed());
                }
                let waits = asked.is_some().then(|| start.elapsed().saturating_sub(answered));
                state.wait(waits.unwrap_or_default());
            }
            event = keys.next() => match event {
                Some(Ok(event)) => {
                    if command(&event).is_some_and(|command| state.obey(command).is_break()) {
                        return Ok(());
                    }
                }
                Some(Err(error)) => return Err(io_failure("cannot read from the terminal", &error)),
                // The terminal is gone.
                None => return Ok(()),
            },
            _ = signals.stop() => return Err(Failure::interrupted()),
        }
    }
}

/// What a key asks for. Of everything else that happens on a terminal, nothing but its new size matters, and that is found when it is drawn.
fn command(event: &Event) -> Option<Command> {
    let Event::Key(key) = event else { return None };
    if key.kind == KeyEventKind::Release {
        return None;
    }
    let with_control = key.modifiers.contains(KeyModifiers::CONTROL);
    Some(match key.code {
        KeyCode::Char('c') if with_control => Command::Leave,
        KeyCode::Char('q' | 'Q') => Command::Leave,
        KeyCode::Esc => Command::Back,
        KeyCode::Char('s') => Command::Sort,
        KeyCode::Char('p' | ' ') => Command::Pause,
        KeyCode::Char('?' | 'h') => Command::Help,
        KeyCode::Up | KeyCode::Char('k') => Command::Up(1),
        KeyCode::Down | KeyCode::Char('j') => Command::Down(1),
        KeyCode::PageUp => Command::PageUp,
        KeyCode::PageDown => Command::PageDown,
        KeyCode::Home => Command::Up(usize::MAX),
        KeyCode::End => Command::Down(usize::MAX),
        _ => return None,
    })
}
